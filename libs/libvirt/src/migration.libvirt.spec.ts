/** A running guest goes from one daemon to another, in both forms that there are, and stays when it cannot. */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { chown } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Libvirt } from './connection.ts';
import { LibvirtError } from './errors.ts';
import type { DomainEvent } from './events.ts';
import type { Domain } from './layouts.ts';
import { migrateDirect } from './migration.ts';
import { connections, eventually } from './testing-connections.ts';
import { agentAnswers, bootDisk, guestXml, guestImageFolders } from './testing-guest.os.ts';
import { startLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd } from './testing-libvirtd.os.ts';
import { guestImage } from '../../../tools/guest-image.ts';

const uuid = '7f0c0de0-0000-4000-8000-000000000003';
const { reach, closeAll } = connections();
let here: OwnLibvirtd;
let there: OwnLibvirtd;
let a: Libvirt;
let b: Libvirt;
let shared: string;
let domain: Domain;
const seen: DomainEvent[] = [];

beforeAll(async () => {
  [here, there] = await Promise.all([startLibvirtd(), startLibvirtd()]);
  shared = await mkdtemp(join(tmpdir(), 'cvmig-'));
  await chmod(shared, 0o755);
  if (process.getuid?.() === 0) await chown(shared, 65_534, 65_534);
  [a, b] = await Promise.all([reach(here.qemuSession), reach(there.qemuSession)]);
  const events = await a.domainEvents({ kinds: ['lifecycle', 'migrationIteration', 'jobCompleted'] });
  void (async () => {
    for await (const event of events) seen.push(event as DomainEvent);
  })();
  domain = await a.domainCreateXml({ xml: guestXml({ name: 'mover', uuid, disk: await bootDisk(shared, 'mover.qcow2', (await guestImage(guestImageFolders)).file) }) });
  await agentAnswers(a, domain);
}, 300_000);

afterAll(async () => {
  for (const libvirt of [a, b]) await libvirt?.domainDestroyFlags({ domain: { uuid } }).catch(() => undefined);
  await closeAll();
  await Promise.all([here?.stop(), there?.stop()]);
  if (shared !== undefined) await rm(shared, { recursive: true, force: true });
});

describe('a guest under QEMU', () => {
  it('has limits to how it is moved', async () => {
    await a.domainMigrateSetMaxSpeed({ domain, mibPerSecond: 300 });
    expect(await a.domainMigrateGetMaxSpeed({ domain })).toBe(300);
    await a.domainMigrateSetMaxDowntime({ domain, downtimeMs: 250 });
    expect(await a.domainMigrateGetMaxDowntime({ domain })).toBe(250);
    await a.domainMigrateSetCompressionCache({ domain, cacheBytes: 8_388_608 });
    expect(await a.domainMigrateGetCompressionCache({ domain })).toBe(8_388_608);
    await expect(a.domainMigrateStartPostCopy({ domain })).rejects.toBeInstanceOf(LibvirtError);
  });

  it('goes from daemon to daemon, peer to peer', async () => {
    await a.domainMigratePerform3Params(
      {
        domain,
        destination: `qemu+unix:///session?socket=${there.socket}`,
        parameters: { migrate_uri: 'tcp://127.0.0.1' },
        flags: ['live', 'peer2peer', 'unsafe'],
      },
      { timeoutMs: 60_000 },
    );
    expect(await b.domainGetState({ domain: { uuid } })).toMatchObject({ state: 'running', reason: 'migrated' });
    await expect(a.domainGetState({ domain: { uuid } })).rejects.toBeInstanceOf(LibvirtError);
    const done = await eventually(() => seen.find((event) => event.kind === 'jobCompleted'));
    expect(done).toMatchObject({ stats: { operation: 5 } });
    expect(seen.some((event) => event.kind === 'migrationIteration')).toBe(true);
    expect(seen.some((event) => event.kind === 'lifecycle' && event.event === 'stopped' && event.detail === 'migrated')).toBe(true);
    await agentAnswers(b, await b.domainLookupByUuid({ uuid }));
  });

  it('comes back with the client between the daemons', async () => {
    const moved = await migrateDirect(
      { domain: { uuid }, source: b, destination: a, flags: ['live', 'unsafe'], parameters: { migrate_uri: 'tcp://127.0.0.1', bandwidth: 500 } },
      { timeoutMs: 60_000 },
    );
    expect(moved).toMatchObject({ name: 'mover', uuid });
    expect(await a.domainGetState({ domain: moved })).toMatchObject({ state: 'running', reason: 'migrated' });
    await expect(b.domainGetState({ domain: { uuid } })).rejects.toBeInstanceOf(LibvirtError);
    await agentAnswers(a, moved);
  });

  it('stays where it is when the other side is not to be had', async () => {
    await expect(
      migrateDirect({ domain: { uuid }, source: a, destination: b, flags: ['live', 'unsafe'], parameters: { migrate_uri: 'tcp://127.0.0.1:1' } }, { timeoutMs: 60_000 }),
    ).rejects.toBeInstanceOf(LibvirtError);
    expect(await a.domainGetState({ domain: { uuid } })).toMatchObject({ state: 'running' });
    await expect(b.domainGetState({ domain: { uuid } })).rejects.toBeInstanceOf(LibvirtError);
    await expect(migrateDirect({ domain: { uuid }, source: a, destination: b, flags: ['peer2peer'] })).rejects.toBeInstanceOf(TypeError);
    await agentAnswers(a, await a.domainLookupByUuid({ uuid }));
  });
});
