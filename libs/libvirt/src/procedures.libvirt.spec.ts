/*
 * Every entry of the table against a real libvirtd, with plausible arguments. The daemon reads the
 * arguments before it asks its driver, and says so when they are not what it expects (error 39), so
 * this shows that each layout is understood, also of what the test driver cannot do. Where the driver
 * answers, our reading of the result is shown as well: a reply that is not read to its very end would
 * end the connection.
 *
 * Of what is newer than the daemon there is another thing to see: that it says so, and that we understand that.
 * CV_LIBVIRT_SYSTEM is a folder with another system, of another libvirt (see the README).
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect } from './connection.ts';
import { errorCodes, LibvirtError, UnsupportedError } from './errors.ts';
import { remote } from './procedure.ts';
import type { Call, Libvirt } from './connection.ts';
import { procedures } from './procedures.ts';
import type { Procedure } from './procedures.ts';
import { domainEvents, networkEvents } from './events.ts';
import type { DomainEventKind, NetworkEventKind } from './events.ts';
import { startLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd } from './testing-libvirtd.os.ts';
import { nothing } from './xdr.ts';

let daemon: OwnLibvirtd;
beforeAll(async () => {
  daemon = await startLibvirtd({}, process.env['CV_LIBVIRT_SYSTEM'] === undefined ? {} : { system: process.env['CV_LIBVIRT_SYSTEM'] });
}, 60_000);
afterAll(() => daemon?.stop());

/** The domain that test:///default begins with, and whatever else a procedure may be told. */
const domain = { name: 'test', uuid: '6695eb01-f6a4-8304-79aa-97f2502e193f', id: 1 };
const uuid = 'dd8fe884-6c02-601e-7551-cca97df1c5df';
const network = { name: 'default', uuid: 'dd8fe884-6c02-601e-7551-cca97df1c5df' };
const point = { name: 'p', domain };
const anything: Readonly<Record<string, unknown>> = {
  domain,
  domains: [domain],
  network,
  port: { network, uuid },
  pool: { name: 'default-pool', uuid: 'dfe224cb-28fb-8dd0-c4b2-64eb3f0f4566' },
  volume: { pool: 'default-pool', name: 'v', key: '/default-pool/v' },
  snapshot: point,
  checkpoint: point,
  interface: { name: 'eth1', mac: 'aa:bb:cc:dd:ee:ff' },
  secret: { uuid },
  binding: { portDevice: 'vnet0' },
  name: 'computer',
  uuid,
  id: 1,
  xml: '<cpu><arch>x86_64</arch><model>qemu64</model></cpu>',
  checkpointXml: '<domaincheckpoint/>',
  cpus: ['<cpu><arch>x86_64</arch><model>qemu64</model></cpu>'],
  feature: 10,
  config: 'qemu',
  architecture: 'x86_64',
  pageKib: [4],
  counts: [1],
  cellCount: 1,
  parameters: {},
  seconds: 60,
  autostart: false,
  metadata: '<a xmlns="urn:a"/>',
  key: 'a',
  uri: 'urn:a',
  device: '52:54:00:00:00:01',
  path: '/dev/vda',
  disk: 'vda',
  alias: 'net0',
  pid: 1,
  signal: 15,
  event: 'poweroff',
  action: 'destroy',
  to: '/nowhere/file',
  file: '/nowhere/file',
  size: 512,
  offset: 0,
  base: '/nowhere/base',
  top: '/nowhere/top',
  bandwidth: 1,
  thresholdBytes: 1_024,
  vcpu: 0,
  vcpus: 1,
  enabled: true,
  iothread: 1,
  memoryKib: 65_536,
  user: 'root',
  password: 'x',
  mountpoints: ['/'],
  mountpoint: '/',
  destination: 'qemu:///nowhere',
  cookie: Buffer.from('cookie'),
  mibPerSecond: 1,
  downtimeMs: 1,
  cacheBytes: 65_536,
  type: 'dir',
  capacityBytes: 1_048_576,
  mac: '52:54:00:00:00:01',
  wwnn: '0',
  wwpn: '0',
  usage: 'ceph',
  usageId: 'x',
  value: Buffer.from('x'),
  command: '{"execute":"query-status"}',
  group: 'g',
  timeout: 1,
};
/** Where the bag's word is of another kind. */
const particular: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  connectDomainXmlFromNative: { format: 'qemu-argv' },
  connectDomainXmlToNative: { format: 'qemu-argv' },
  nwfilterGetXmlDesc: { filter: { name: 'f', uuid } },
  nwfilterUndefine: { filter: { name: 'f', uuid } },
  domainSendKey: { keys: [28] },
  domainAuthorizedSshKeysSet: { keys: ['ssh-ed25519 AAAA'] },
  storageVolCreateXmlFrom: { from: anything['volume'] },
  domainRestore: { from: '/nowhere/file' },
  domainRestoreFlags: { from: '/nowhere/file' },
  domainSetVcpu: { vcpus: '0' },
  domainSetGuestVcpus: { vcpus: '0' },
  domainPinVcpu: { cpus: [0] },
  domainPinVcpuFlags: { cpus: [0] },
  domainPinEmulator: { cpus: [0] },
  domainPinIothread: { cpus: [0] },
  domainGetCpuStats: { cpus: 1 },
};

const names = Object.keys(procedures) as (keyof typeof procedures)[];
const misunderstood = /unable to decode|unknown procedure/i;
/** As libvirt counts its versions. */
const versionOf = (since: string): number => since.split('.').reduce((sum, part) => sum * 1_000 + Number(part), 0);

describe('every procedure of the table', () => {
  it.each(names)('%s is understood by libvirtd', async (name) => {
    // A connection of its own: the test driver forgets everything when the last one closes.
    const libvirt: Libvirt = await connect(daemon.testDriver);
    try {
      const call = libvirt[name] as Call<Procedure>;
      const outcome = await call.call(libvirt, { ...anything, ...particular[name] }, { timeoutMs: 10_000 }).then(
        () => 'answered',
        (error: unknown) => error,
      );
      if (versionOf(procedures[name].since) > (await libvirt.connectGetLibVersion())) {
        expect(outcome).toBeInstanceOf(UnsupportedError);
        expect(outcome).toMatchObject({ call: name });
        return;
      }
      if (outcome === 'answered') return;
      // No TypeError (our encoding), no Disconnected (our reading), no time-out: the daemon's own word, and not that it did not understand.
      expect(outcome).toBeInstanceOf(LibvirtError);
      const { code, reason } = outcome as LibvirtError;
      expect(code === errorCodes.rpc && misunderstood.test(reason) ? reason : 'understood').toBe('understood');
    } finally {
      await libvirt.close();
    }
  });

  it('that a newer daemon would have is unsupported, in so many words', async () => {
    const libvirt = await connect(daemon.testDriver);
    try {
      // Of any type with the method that each call of the table goes through.
      const through = libvirt as unknown as { call(name: string, procedure: Procedure, args: unknown, options: object): Promise<unknown> };
      const error: unknown = await through.call('domainFromTomorrow', remote(9_999, '99.0.0', {}, nothing), {}, {}).catch((caught: unknown) => caught);
      expect(error).toBeInstanceOf(UnsupportedError);
      expect(error).toMatchObject({ call: 'domainFromTomorrow' });
      expect(await libvirt.connectGetType()).toBe('TEST');
    } finally {
      await libvirt.close();
    }
  });

  it('that a newer daemon would have, newer events are unsupported, and the connection goes on', async () => {
    const libvirt = await connect(daemon.testDriver);
    try {
      const version = await libvirt.connectGetLibVersion();
      // The casts: keys of the tables that are gone through.
      const attempts = [
        ...Object.entries(domainEvents).map(([kind, { since }]) => ({ since, listen: () => libvirt.domainEvents({ kinds: [kind as DomainEventKind] }) })),
        ...Object.entries(networkEvents).map(([kind, { since }]) => ({ since, listen: () => libvirt.networkEvents({ kinds: [kind as NetworkEventKind] }) })),
      ];
      const outcomes = await Promise.all(attempts.map(async ({ since, listen }) => ({ newer: since !== undefined && versionOf(since) > version, outcome: await listen().catch((error: unknown) => error) })));
      for (const { newer, outcome } of outcomes) {
        if (newer) expect(outcome).toBeInstanceOf(UnsupportedError);
        else expect(outcome).not.toBeInstanceOf(Error);
      }
      expect(await libvirt.connectGetType()).toBe('TEST');
    } finally {
      await libvirt.close();
    }
  });

  it('has its own number', () => {
    const all = Object.values(procedures as Readonly<Record<string, Procedure>>).map((procedure) => `${procedure.program} ${procedure.number}`);
    expect(new Set(all).size).toBe(all.length);
  });
});
