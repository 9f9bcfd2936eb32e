/** What happens to a domain's disks over time: snapshots, the jobs on their chains, checkpoints and backups. */
import { execFile } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { connect } from './connection.ts';
import type { Libvirt } from './connection.ts';
import { readDomain } from './domain-xml.ts';
import { isNoCheckpoint, isNoSnapshot, LibvirtError, UnsupportedError } from './errors.ts';
import type { DomainEvent, EventStream } from './events.ts';
import type { Domain } from './layouts.ts';
import { connections, eventually } from './testing-connections.ts';
import { agentAnswers, bootDisk, emptyDisk, guestXml, guestImageFolders } from './testing-guest.os.ts';
import { startLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd } from './testing-libvirtd.os.ts';
import { guestImage } from '../../../tools/guest-image.ts';

const run = promisify(execFile);
const { reach, closeAll } = connections();
let daemon: OwnLibvirtd;

beforeAll(async () => {
  daemon = await startLibvirtd();
}, 60_000);
afterAll(async () => {
  await daemon?.stop();
});

describe('a domain of the test driver', () => {
  let anchor: Libvirt;
  beforeAll(async () => {
    anchor = await connect(daemon.testDriver);
  });
  afterEach(closeAll);
  afterAll(() => anchor?.close());
  const names = (all: readonly { readonly name: string }[]) => all.map((one) => one.name).sort();

  it('goes back to its snapshots', async () => {
    const libvirt = await reach(daemon.testDriver);
    const domain = await libvirt.domainLookupByName({ name: 'test' });
    expect(await libvirt.domainHasCurrentSnapshot({ domain })).toBe(false);
    await expect(libvirt.domainSnapshotCurrent({ domain })).rejects.toSatisfy(isNoSnapshot);
    const first = await libvirt.domainSnapshotCreateXml({ domain, xml: '<domainsnapshot><name>first</name></domainsnapshot>' });
    expect(first).toEqual({ name: 'first', domain });
    const second = await libvirt.domainSnapshotCreateXml({ domain, xml: '<domainsnapshot><name>second</name></domainsnapshot>' });
    await libvirt.domainSnapshotCreateXml({ domain, xml: '<domainsnapshot><name>third</name></domainsnapshot>' });
    expect(await libvirt.domainHasCurrentSnapshot({ domain })).toBe(true);
    expect((await libvirt.domainSnapshotCurrent({ domain })).name).toBe('third');
    expect(names(await libvirt.domainListAllSnapshots({ domain }))).toEqual(['first', 'second', 'third']);
    expect(names(await libvirt.domainListAllSnapshots({ domain, filter: ['roots'] }))).toEqual(['first']);
    expect(names(await libvirt.domainListAllSnapshots({ domain, filter: ['leaves'] }))).toEqual(['third']);
    expect(names(await libvirt.domainSnapshotListAllChildren({ snapshot: first }))).toEqual(['second']);
    expect(names(await libvirt.domainSnapshotListAllChildren({ snapshot: first, filter: ['descendants'] }))).toEqual(['second', 'third']);
    expect(await libvirt.domainSnapshotNum({ domain })).toBe(3);
    expect([...(await libvirt.domainSnapshotListNames({ domain }))].sort()).toEqual(['first', 'second', 'third']);
    expect(await libvirt.domainSnapshotNumChildren({ snapshot: first })).toBe(1);
    expect(await libvirt.domainSnapshotListChildrenNames({ snapshot: first })).toEqual(['second']);
    expect(await libvirt.domainSnapshotGetParent({ snapshot: second })).toEqual(first);
    await expect(libvirt.domainSnapshotGetParent({ snapshot: first })).rejects.toSatisfy(isNoSnapshot);
    expect(await libvirt.domainSnapshotLookupByName({ domain, name: 'second' })).toEqual(second);
    expect(await libvirt.domainSnapshotIsCurrent({ snapshot: first })).toBe(false);
    expect(await libvirt.domainSnapshotHasMetadata({ snapshot: first })).toBe(true);
    expect(await libvirt.domainSnapshotGetXmlDesc({ snapshot: first })).toContain('<name>first</name>');
    await libvirt.domainSuspend({ domain });
    await libvirt.domainRevertToSnapshot({ snapshot: first });
    expect(await libvirt.domainGetState({ domain })).toMatchObject({ state: 'running' });
    expect(await libvirt.domainSnapshotIsCurrent({ snapshot: first })).toBe(true);
    await libvirt.domainSnapshotDelete({ snapshot: first, flags: ['children'] });
    expect(await libvirt.domainListAllSnapshots({ domain })).toEqual([]);
    await expect(libvirt.domainSnapshotLookupByName({ domain, name: 'first' })).rejects.toMatchObject({ call: 'domainSnapshotLookupByName', object: 'test' });
  });

  it('marks checkpoints', async () => {
    const libvirt = await reach(daemon.testDriver);
    const domain = await libvirt.domainCreateXml({
      xml: `<domain type='test'><name>checked</name><memory unit='MiB'>64</memory><os><type>hvm</type></os>
        <devices><disk type='file' device='disk'><driver type='qcow2'/><source file='/c.img'/><target dev='vda' bus='virtio'/></disk></devices></domain>`,
    });
    const first = await libvirt.domainCheckpointCreateXml({ domain, xml: '<domaincheckpoint><name>c1</name></domaincheckpoint>' });
    const second = await libvirt.domainCheckpointCreateXml({ domain, xml: '<domaincheckpoint><name>c2</name></domaincheckpoint>' });
    expect(names(await libvirt.domainListAllCheckpoints({ domain }))).toEqual(['c1', 'c2']);
    expect(names(await libvirt.domainListAllCheckpoints({ domain, filter: ['leaves'] }))).toEqual(['c2']);
    expect(await libvirt.domainCheckpointListAllChildren({ checkpoint: first })).toEqual([second]);
    expect(await libvirt.domainCheckpointGetParent({ checkpoint: second })).toEqual(first);
    expect(await libvirt.domainCheckpointLookupByName({ domain, name: 'c1' })).toEqual(first);
    expect(await libvirt.domainCheckpointGetXmlDesc({ checkpoint: first, flags: ['noDomain'] })).toContain('<name>c1</name>');
    await libvirt.domainCheckpointDelete({ checkpoint: first });
    await expect(libvirt.domainCheckpointLookupByName({ domain, name: 'c1' })).rejects.toSatisfy(isNoCheckpoint);
    await expect(libvirt.domainBackupBegin({ domain, xml: '<domainbackup/>' })).rejects.toBeInstanceOf(UnsupportedError);
    await expect(libvirt.domainBackupGetXmlDesc({ domain })).rejects.toBeInstanceOf(UnsupportedError);
    await libvirt.domainDestroyFlags({ domain });
  });
});

describe('the disks of a guest under QEMU', () => {
  const seen: DomainEvent[] = [];
  let libvirt: Libvirt;
  let domain: Domain;
  let folder: string;
  let events: EventStream<DomainEvent>;

  beforeAll(async () => {
    folder = join(daemon.directory, 'run');
    libvirt = await reach(daemon.qemuSession);
    events = await libvirt.domainEvents({ kinds: ['blockJob', 'blockJobOfPath', 'jobCompleted', 'lifecycle'] });
    void (async () => {
      for await (const event of events) seen.push(event as DomainEvent);
    })();
    const data = await emptyDisk(folder, 'data.qcow2', 16);
    const xml = guestXml({
      name: 'disks',
      uuid: '7f0c0de0-0000-4000-8000-000000000002',
      disk: await bootDisk(folder, 'base.qcow2', (await guestImage(guestImageFolders)).file),
      devices: `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${data}'/><target dev='vdb' bus='virtio'/></disk>`,
    });
    domain = await libvirt.domainCreateWithFlags({ domain: await libvirt.domainDefineXmlFlags({ xml, flags: ['validate'] }) });
    await agentAnswers(libvirt, domain);
  }, 300_000);

  afterAll(async () => {
    await libvirt?.domainDestroyFlags({ domain }).catch(() => undefined);
    await libvirt?.domainUndefineFlags({ domain, flags: ['snapshotsMetadata', 'checkpointsMetadata'] }).catch(() => undefined);
    await closeAll();
  });

  const sourceOf = async (target: string) => readDomain(await libvirt.domainGetXmlDesc({ domain })).disks.find((disk) => disk.target === target)?.path;
  const sawJob = (status: string, job: string) => eventually(() => seen.some((event) => event.kind === 'blockJob' && event.job === job && event.status === status), 30_000);

  it('are kept by an external snapshot, whose overlay is merged back', async () => {
    const base = await sourceOf('vda');
    const overlay = join(folder, 'overlay.qcow2');
    const snapshot = await libvirt.domainSnapshotCreateXml({
      domain,
      xml: `<domainsnapshot><name>outside</name><disks><disk name='vda' snapshot='external'><source file='${overlay}'/></disk><disk name='vdb' snapshot='no'/></disks></domainsnapshot>`,
      flags: ['diskOnly', 'atomic', 'noMetadata'],
    });
    expect(snapshot.name).toBe('outside');
    expect(await sourceOf('vda')).toBe(overlay);
    await libvirt.domainBlockCommit({ domain, disk: 'vda', flags: ['active', 'shallow', 'bandwidthBytes'] });
    await sawJob('ready', 'activeCommit');
    const job = await libvirt.domainGetBlockJobInfo({ domain, disk: 'vda' });
    expect(job).toMatchObject({ type: 'activeCommit' });
    expect(job?.current).toBe(job?.end);
    await libvirt.domainBlockJobSetSpeed({ domain, disk: 'vda', bandwidth: 100 });
    await libvirt.domainBlockJobAbort({ domain, disk: 'vda', flags: ['pivot'] });
    await sawJob('completed', 'activeCommit');
    expect(await sourceOf('vda')).toBe(base);
    expect(await libvirt.domainGetBlockJobInfo({ domain, disk: 'vda' })).toBeNull();
    expect(seen.some((event) => event.kind === 'blockJobOfPath')).toBe(true);
    await agentAnswers(libvirt, domain);
  });

  it('are copied to another image, and go over to it', async () => {
    const copy = join(folder, 'copy.qcow2');
    const before = await sourceOf('vdb');
    await libvirt.domainBlockCopy({
      domain,
      disk: 'vdb',
      xml: `<disk type='file'><driver type='qcow2'/><source file='${copy}'/></disk>`,
      parameters: { granularity: 65_536 },
      flags: ['transientJob'],
    });
    await sawJob('ready', 'copy');
    await libvirt.domainBlockJobAbort({ domain, disk: 'vdb', flags: ['pivot'] });
    expect(await sourceOf('vdb')).toBe(copy);
    await libvirt.domainBlockRebase({ domain, disk: 'vdb', base: before ?? '', flags: ['copy'] }).catch((error: unknown) => expect(error).toBeInstanceOf(LibvirtError));
    await libvirt.domainBlockJobAbort({ domain, disk: 'vdb' }).catch(() => undefined);
  });

  it('are flattened', async () => {
    const overlay = join(folder, 'flat.qcow2');
    await libvirt.domainSnapshotCreateXml({
      domain,
      xml: `<domainsnapshot><disks><disk name='vdb' snapshot='external'><source file='${overlay}'/></disk><disk name='vda' snapshot='no'/></disks></domainsnapshot>`,
      flags: ['diskOnly', 'noMetadata'],
    });
    await libvirt.domainBlockPull({ domain, disk: 'vdb' });
    await sawJob('completed', 'pull');
    const { stdout } = await run('qemu-img', ['info', '-U', '--output=json', overlay]);
    expect(JSON.parse(stdout)).not.toHaveProperty('backing-filename');
  });

  it('are backed up in whole, and then what has changed since', async () => {
    const full = join(folder, 'full.qcow2');
    await libvirt.domainBackupBegin({
      domain,
      xml: `<domainbackup mode='push'><disks><disk name='vdb' backup='yes' type='file'><driver type='qcow2'/><target file='${full}'/></disk><disk name='vda' backup='no'/></disks></domainbackup>`,
      checkpointXml: `<domaincheckpoint><name>monday</name><disks><disk name='vdb' checkpoint='bitmap'/><disk name='vda' checkpoint='no'/></disks></domaincheckpoint>`,
    });
    const done = await eventually(() => seen.find((event) => event.kind === 'jobCompleted'), 30_000);
    expect(done).toMatchObject({ stats: { operation: 9, success: true } });
    expect(await libvirt.domainGetJobStats({ domain, flags: ['completed'] })).toMatchObject({ type: 'completed', stats: { operation: 9, disk_total: 16 * 1_048_576, disk_remaining: 0 } });
    expect((await libvirt.domainListAllCheckpoints({ domain })).map((checkpoint) => checkpoint.name)).toEqual(['monday']);
    expect(await libvirt.domainCheckpointGetXmlDesc({ checkpoint: { name: 'monday', domain }, flags: ['size'] })).toContain("<disk name='vdb' checkpoint='bitmap'");

    await libvirt.domainAgentCommand({
      domain,
      command: JSON.stringify({ execute: 'guest-exec', arguments: { path: '/bin/sh', arg: ['-c', 'echo changed > /dev/vdb; sync'] } }),
    });
    const increment = join(folder, 'increment.qcow2');
    await eventually(async () => /size='[1-9]/.test(await libvirt.domainCheckpointGetXmlDesc({ checkpoint: { name: 'monday', domain }, flags: ['size', 'noDomain'] })));
    seen.splice(0);
    await libvirt.domainBackupBegin({
      domain,
      xml: `<domainbackup mode='push'><incremental>monday</incremental><disks><disk name='vdb' backup='yes' type='file'><driver type='qcow2'/><target file='${increment}'/></disk><disk name='vda' backup='no'/></disks></domainbackup>`,
      checkpointXml: `<domaincheckpoint><name>tuesday</name><disks><disk name='vdb' checkpoint='bitmap'/><disk name='vda' checkpoint='no'/></disks></domaincheckpoint>`,
    });
    expect(await eventually(() => seen.find((event) => event.kind === 'jobCompleted'), 30_000)).toMatchObject({ stats: { success: true } });
    expect((await stat(increment)).size).toBeGreaterThan(0);
    const tuesday = { name: 'tuesday', domain };
    expect((await libvirt.domainCheckpointGetParent({ checkpoint: tuesday })).name).toBe('monday');
    await libvirt.domainCheckpointDelete({ checkpoint: { name: 'monday', domain }, flags: ['children'] });
    expect(await libvirt.domainListAllCheckpoints({ domain })).toEqual([]);
  });

  it('are given to whoever pulls a backup, until it is aborted', async () => {
    const socket = join(folder, 'nbd');
    await libvirt.domainBackupBegin({
      domain,
      xml: `<domainbackup mode='pull'><server transport='unix' socket='${socket}'/><disks><disk name='vdb' backup='yes' type='file'><scratch file='${join(folder, 'scratch')}'/></disk><disk name='vda' backup='no'/></disks></domainbackup>`,
    });
    expect(await libvirt.domainBackupGetXmlDesc({ domain })).toContain("mode='pull'");
    expect(await libvirt.domainGetJobInfo({ domain })).toMatchObject({ type: 'unbounded' });
    seen.splice(0);
    await libvirt.domainAbortJobFlags({ domain });
    await eventually(() => seen.find((event) => event.kind === 'jobCompleted'), 30_000);
    await expect(libvirt.domainBackupGetXmlDesc({ domain })).rejects.toBeInstanceOf(LibvirtError);
    await expect(libvirt.domainAbortJob({ domain })).rejects.toBeInstanceOf(LibvirtError);
  });

  it('are kept within themselves, with the memory, and go back', async () => {
    const snapshot = await libvirt.domainSnapshotCreateXml({ domain, xml: '<domainsnapshot><name>inside</name></domainsnapshot>' });
    expect(await libvirt.domainSnapshotIsCurrent({ snapshot })).toBe(true);
    await libvirt.domainSuspend({ domain });
    await libvirt.domainRevertToSnapshot({ snapshot, flags: ['running', 'force'] });
    expect(await libvirt.domainGetState({ domain })).toMatchObject({ state: 'running' });
    await libvirt.domainSnapshotDelete({ snapshot });
    await expect(libvirt.domainSnapshotLookupByName({ domain, name: 'inside' })).rejects.toSatisfy(isNoSnapshot);
    domain = await libvirt.domainLookupByUuid({ uuid: domain.uuid });
    await agentAnswers(libvirt, domain);
  });
});
