/* What can be known of the transports without a daemon: the words for ssh, and where certificates are. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Disconnected } from './errors.ts';
import type { SshTransport } from './target.ts';
import { quoted, sshArguments } from './transport-ssh.ts';
import { certificatePlaces, loadCertificates } from './transport-tls.ts';

const run = promisify(execFile);
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cvtp-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('the words for ssh', () => {
  const toHost = (more: Partial<SshTransport> = {}): SshTransport => ({ kind: 'ssh', host: 'node-1', ...more });
  const words = (more: Partial<SshTransport>, driver = 'qemu:///system', readOnly = false) => sshArguments(toHost(more), driver, readOnly);
  /** What the script is given there. */
  const given = (more: Partial<SshTransport>, driver?: string, readOnly?: boolean) => /' sh (.*)$/s.exec(words(more, driver, readOnly).at(-1) ?? '')?.[1];

  it('name the machine behind everything that could be an option', () => {
    expect(words({}).slice(0, -1)).toEqual(['-T', '-e', 'none', '--', 'node-1']);
    expect(words({ port: 22, user: 'ops', keyFile: '/k', knownHostsFile: '/h h', batch: true, verifyServer: false }).slice(0, -1)).toEqual([
      '-T', '-e', 'none', '-p', '22', '-l', 'ops', '-i', '/k', '-o', 'UserKnownHostsFile="/h h"', '-o', 'BatchMode=yes', '-o', 'StrictHostKeyChecking=no', '--', 'node-1',
    ]);
  });

  it.each([
    [{}, 'qemu:///system', false, "'auto' 'qemu:///system' '' 'nc' '/var/run/libvirt/libvirt-sock' '/var/run/libvirt/virtqemud-sock'"],
    [{}, 'qemu:///system', true, "'auto' 'qemu:///system' '-r' 'nc' '/var/run/libvirt/libvirt-sock-ro' '/var/run/libvirt/virtqemud-sock-ro'"],
    [{ mode: 'direct' }, 'xen:///system', false, "'auto' 'xen:///system' '' 'nc' '/var/run/libvirt/virtxend-sock'"],
    [{ mode: 'legacy', proxy: 'netcat' }, 'qemu:///session', true, "'netcat' 'qemu:///session' '-r' 'nc' 'libvirt-sock'"],
    [{ proxy: 'helper' }, 'test:///default', false, "'helper' 'test:///default' '' 'nc' '/var/run/libvirt/libvirt-sock'"],
    [{ socket: '/s s', netcat: '/opt/nc' }, 'qemu:///system', false, "'netcat' 'qemu:///system' '' '/opt/nc' '/s s'"],
  ] as const)('for %j and %s (read-only: %s) tell the other side what it needs', (more, driver, readOnly, expected) => expect(given(more, driver, readOnly)).toBe(expected));

  it.each([
    [{ host: '-oProxyCommand=x' }],
    [{ host: '' }],
    [{ user: '-x' }],
    [{ knownHostsFile: 'a"b' }],
    [{ proxy: 'helper', socket: '/s' }],
    [{ socket: "/it's" }],
  ] as const)('are not made for %j', (more) => expect(() => words(more)).toThrow(TypeError));

  it('mean themselves to a shell, or are refused', () =>
    fc.assert(
      fc.asyncProperty(fc.string({ unit: fc.constantFrom(...'ab $`"\'\\!;&|<>*?~#(){}[]\n\t=%-') }), async (word) => {
        let safe: string;
        try {
          safe = quoted(word);
        } catch (error) {
          expect(error).toBeInstanceOf(TypeError);
          expect(word).toMatch(/['\\!\n\t]/);
          return;
        }
        expect((await run('sh', ['-c', `printf %s ${safe}`])).stdout).toBe(word);
      }),
      { numRuns: 60 },
    ));
});

describe('certificates', () => {
  it('are where libvirt has them', () => {
    expect(certificatePlaces('/pki', '/home/me', false)).toEqual({
      authority: ['/pki/cacert.pem'],
      pair: [{ certificate: '/pki/clientcert.pem', key: '/pki/clientkey.pem' }],
      revoked: ['/pki/cacrl.pem'],
    });
    expect(certificatePlaces(undefined, '/root', true)).toEqual({
      authority: ['/etc/pki/CA/cacert.pem'],
      pair: [{ certificate: '/etc/pki/libvirt/clientcert.pem', key: '/etc/pki/libvirt/private/clientkey.pem' }],
      revoked: ['/etc/pki/CA/cacrl.pem'],
    });
    expect(certificatePlaces(undefined, '/home/me', false).authority).toEqual(['/home/me/.pki/libvirt/cacert.pem', '/etc/pki/CA/cacert.pem']);
    expect(certificatePlaces(undefined, '/home/me', false).pair[0]).toEqual({ certificate: '/home/me/.pki/libvirt/clientcert.pem', key: '/home/me/.pki/libvirt/clientkey.pem' });
  });

  it('are read where they are, the first place first', async () => {
    const place = async (name: string, files: readonly string[]) => {
      await mkdir(join(folder, name));
      for (const file of files) await writeFile(join(folder, name, file), `${name} ${file}`);
      return certificatePlaces(join(folder, name), '/', true);
    };
    const whole = await place('whole', ['cacert.pem', 'clientcert.pem', 'clientkey.pem', 'cacrl.pem']);
    const loaded = await loadCertificates(whole);
    expect(Object.fromEntries(Object.entries(loaded).map(([name, bytes]) => [name, String(bytes)]))).toEqual({
      authority: 'whole cacert.pem', certificate: 'whole clientcert.pem', key: 'whole clientkey.pem', revoked: 'whole cacrl.pem',
    });
    const alone = await place('alone', ['cacert.pem']);
    expect(Object.keys(await loadCertificates(alone))).toEqual(['authority']);
    const both = { authority: [...alone.authority, ...whole.authority], pair: [...alone.pair, ...whole.pair], revoked: [] };
    expect(await loadCertificates(both)).toMatchObject({ authority: Buffer.from('alone cacert.pem'), certificate: Buffer.from('whole clientcert.pem') });
  });

  it('that are halves, missing or no files are errors', async () => {
    await mkdir(join(folder, 'half'));
    await writeFile(join(folder, 'half', 'cacert.pem'), '');
    await writeFile(join(folder, 'half', 'clientcert.pem'), '');
    await expect(loadCertificates(certificatePlaces(join(folder, 'half'), '/', true))).rejects.toThrow(/but not its key/);
    await expect(loadCertificates(certificatePlaces(join(folder, 'nowhere'), '/', true))).rejects.toBeInstanceOf(Disconnected);
    // A list of revoked certificates that cannot be read is not the same as none.
    await mkdir(join(folder, 'half', 'cacrl.pem'));
    await expect(loadCertificates(certificatePlaces(join(folder, 'half'), '/', true))).rejects.toThrow(/cacrl.pem cannot be read/);
  });
});
