import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { adminTokenOf, installationOf, locate, makeFolders, settingsFrom } from './home.ts';
import { isRoot } from './identity.ts';

const base = mkdtempSync(join(tmpdir(), 'cv-home-'));
chmodSync(base, 0o755);
afterAll(() => rmSync(base, { recursive: true, force: true }));

describe('where an installation lives', () => {
  it('is all in CV_HOME where others may pass', () => {
    const home = locate(join(base, 'h'));
    expect(home.open).toBe(join(base, 'h'));
    expect(home.remarks).toEqual([]);
  });

  it.runIf(isRoot())('is partly in /var/lib/chronovirt below a folder that others may not enter, and says so', () => {
    const shut = join(base, 'shut');
    mkdirSync(shut, { mode: 0o700 });
    const home = locate(join(shut, 'clone/.chronovirt'));
    expect(home.open).toMatch(/^\/var\/lib\/chronovirt\/[0-9a-f]{8}$/);
    expect(home.secrets).toBe(join(shut, 'clone/.chronovirt/secrets'));
    expect(home.remarks).toEqual([`other users may not enter ${shut}, so the data that Postgres, NATS and QEMU must reach lies in ${home.open}`]);
    expect(locate(join(shut, 'other/.chronovirt')).open).not.toBe(home.open);
  });

  it('keeps every socket path under 100 bytes', () => {
    const home = locate(join(base, 'a-folder-with-a-rather-long-name'.repeat(3)));
    expect(join(home.sockets, `vm_${'0'.repeat(36)}.console.sock`).length).toBeLessThan(100);
    expect(home.remarks.join()).toMatch(/too long for sockets/);
  });

  it('makes a token that only its owner can read, once', () => {
    const home = locate(join(base, 'token'));
    makeFolders(home, { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, name: 'test' });
    const token = adminTokenOf(home);
    expect(token).toMatch(new RegExp(`^cv_${installationOf(home)}_[A-Za-z0-9_-]{43}$`));
    expect(adminTokenOf(home)).toBe(token);
    expect(statSync(home.adminTokenFile).mode & 0o777).toBe(0o600);
    expect(statSync(home.secrets).mode & 0o777).toBe(0o700);
  });

  it('says everything that is wrong with the environment at once', () => {
    expect(() => settingsFrom({ CV_HOME: 'relative', CV_PORT: '99999' })).toThrow(/CV_HOME must be an absolute path.*CV_PORT must be a port/);
    expect(settingsFrom({}).port).toBe(8080);
  });
});
