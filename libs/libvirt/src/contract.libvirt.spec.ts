/*
 * The contract (contract.ts) on every kind of daemon. What a driver cannot do is listed with the reason,
 * and is run all the same: once it can, the list is wrong and says so.
 */
import { join } from 'node:path';
import { guestImage } from '../../../tools/guest-image.ts';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { behaviours } from './testing-contract.ts';
import type { Bench } from './testing-contract.ts';
import { connect } from './connection.ts';
import { FakeDaemon, targetOf } from './fake/daemon.ts';
import { served } from './fake/handlers.ts';
import { Migrations } from './fake/migration.ts';
import { bootDisk, guestImageFolders } from './testing-guest.os.ts';
import { startLibvirtd, startSystemLibvirtd } from './testing-libvirtd.os.ts';

type Unable = Readonly<Record<string, string>>;

interface Driver {
  readonly name: string;
  /** Behaviours that it does not have, and why. */
  readonly unable: Unable;
  /** Only these; all where nothing is said. */
  readonly only?: readonly string[];
  readonly start: () => Promise<{ readonly bench: Omit<Bench, 'unique' | 'patienceMs'>; readonly stop: () => Promise<void> }>;
}

const networkBehaviours = ['keeps networks, starts and stops them, and changes them while they run', 'does not start a domain whose network is off or not there'];

/** What the contract called on the fake. */
const calledOnFake = new Set<string>();

/**
 * What the fake has and no behaviour calls, so that nobody has compared it with QEMU: older words for the same, what the QEMU
 * of these tests cannot show (counters of cgroups, traffic limits), and what still waits for its behaviour.
 */
const beyondTheContract = [
  'connectDomainMonitorEventDeregister', 'connectDomainMonitorEventRegister', 'connectGetSysinfo', 'connectListAllInterfaces',
  'connectListAllNetworks', 'connectListAllNodeDevices', 'connectListAllNwfilterBindings', 'connectListAllNwfilters', 'connectListAllSecrets',
  'connectListDefinedInterfaces', 'connectListInterfaces', 'connectListNwfilters', 'connectNodeDeviceEventDeregisterAny',
  'connectNodeDeviceEventRegisterAny', 'connectNumOfDefinedInterfaces', 'connectNumOfInterfaces', 'connectNumOfNwfilters',
  'connectUnregisterCloseCallback', 'domainAbortJobFlags', 'domainAgentSetResponseTimeout', 'domainBlockJobSetSpeed', 'domainBlockRebase',
  'domainCheckpointListAllChildren', 'domainDetachDevice', 'domainDetachDeviceAlias', 'domainFstrim', 'domainGetCpuStats', 'domainGetFsinfo',
  'domainGetHostname', 'domainGetInterfaceParameters', 'domainGetMessages', 'domainGetSecurityLabelList', 'domainInterfaceStats', 'domainIsUpdated',
  'domainManagedSaveRemove', 'domainSetInterfaceParameters', 'domainSetMemoryStatsPeriod', 'domainSetTime', 'domainSetUserPassword',
  'domainSnapshotHasMetadata', 'domainSnapshotIsCurrent', 'domainSnapshotListNames', 'domainSnapshotNum', 'domainUpdateDeviceFlags',
  'networkCreateXml', 'networkCreateXmlFlags', 'networkDefineXmlFlags', 'networkIsPersistent', 'networkListAllPorts', 'networkLookupByUuid',
  'nodeDeviceGetParent', 'nodeDeviceGetXmlDesc', 'nodeDeviceIsActive', 'nodeDeviceLookupByName', 'nodeListDevices', 'nodeNumOfDevices',
  'secretGetXmlDesc', 'storagePoolCreateXml', 'storageVolWipe',
];

const drivers: readonly Driver[] = [
  {
    name: 'the fake daemon',
    unable: {},
    start: async () => {
      const migrations = new Migrations();
      const [daemon, other] = ['one', 'two'].map((hostname) => new FakeDaemon({ hostname, migrations, jobMs: 20, guest: { bootMs: 50, shutdownMs: 20 } })) as [FakeDaemon, FakeDaemon];
      const [libvirt, there] = [await connect(targetOf(daemon)), await connect(targetOf(other))];
      return {
        bench: { libvirt, virtualisation: 'qemu', arch: 'x86_64', folder: '/fake', other: { libvirt: there, uri: 'qemu+tcp://two/system' }, bootDisk: async (name) => `/fake/${name}` },
        stop: async () => {
          await Promise.all([libvirt.close(), there.close()]);
          await Promise.all([daemon.close(), other.close()]);
          for (const name of [...daemon.calls.keys(), ...other.calls.keys()]) calledOnFake.add(name);
        },
      };
    },
  },
  {
    name: 'QEMU',
    unable: { 'keeps networks, starts and stops them, and changes them while they run': 'the daemon of an ordinary user can make no bridge: see the system daemon' },
    start: async () => {
      const [daemon, other] = await Promise.all([startLibvirtd(), startLibvirtd()]);
      const options = { callTimeoutMs: 60_000 };
      const [libvirt, there] = [await connect(daemon.qemuSession, options), await connect(other.qemuSession, options)];
      const folder = join(daemon.directory, 'run');
      return {
        bench: {
          libvirt, virtualisation: 'qemu', arch: 'x86_64', folder,
          other: { libvirt: there, uri: `qemu+unix:///session?socket=${other.socket}` },
          bootDisk: async (name) => bootDisk(folder, name, (await guestImage(guestImageFolders)).file),
        },
        stop: async () => {
          await Promise.all([libvirt.close(), there.close()]);
          await Promise.all([daemon.stop(), other.stop()]);
        },
      };
    },
  },
  {
    name: 'QEMU of a system daemon',
    unable: {},
    only: networkBehaviours,
    start: async () => {
      const daemon = await startSystemLibvirtd();
      const libvirt = await connect(daemon.qemuSystem, { callTimeoutMs: 60_000 });
      return {
        bench: { libvirt, virtualisation: 'qemu', arch: 'x86_64', folder: daemon.directory, bootDisk: () => Promise.reject(new Error('not here')) },
        stop: async () => {
          await libvirt.close();
          await daemon.stop();
        },
      };
    },
  },
  {
    name: 'the test driver',
    unable: {
      ...Object.fromEntries(
        [
          'plugs in a disk, an interface and memory, and takes them out of its XML again',
          'refuses to plug into what is off, live',
          'knows the size of a disk, and what it is asked of a disk that is not there',
          'puts overlays on a disk by external snapshots, and commits them while the guest runs',
          'does not forget a domain that has snapshots unless told so',
          'returns to an internal snapshot',
          'copies a disk that is in use, and gives the copy up',
          'marks checkpoints, and backs a disk up while the guest runs',
          'has no agent to talk to in a guest that is not up',
          'has no screen and no console where there is none',
          'boots a guest whose agent answers, with a console and a screen, and shuts it down',
          'migrates a guest to another daemon , which both tell in order',
          'migrates a guest by five calls with a client between',
          'limits a disk while its guest runs, and gives the limits back',
          'tells more of a domain and of what it could be',
          'understands the older forms of its calls',
        ].map((name) => [name, 'it runs no guests: no devices to plug, no disks, no agent']),
      ),
      'describes its processors and its memory': 'no memory statistics',
      'fills in what a definition leaves out, and keeps the rest': 'its CPU time is the wall clock, also of a domain that is off',
      'starts a domain that stands still, and forgets a transient one when it stops': 'no flag for it',
      'refuses what does not fit the state': 'another error, internal',
      'suspends twice without a word, and resumes once': 'refuses the second time',
      'undefines a domain that runs, which is transient then': 'lets a transient domain start by itself',
      'counts what a running domain uses': 'only the state',
      'saves a domain, and goes on with it where it was': 'the restored domain is only booted',
      'keeps pools and volumes, and says what it does not have': 'another error for a volume that is there',
      'resizes a volume, not below what it holds': 'volumes have no contents',
      'takes the bytes of a volume and gives them back, holes as holes': 'volumes have no contents',
      'finds a pool and a volume in every way, copies a volume and wipes it': 'volumes have no contents',
      'keeps secrets, and tells of them': 'no secrets',
      'keeps networks, starts and stops them, and changes them while they run': 'no leases',
      'does not start a domain whose network is off or not there': 'starts it',
    },
    start: async () => {
      const daemon = await startLibvirtd();
      const libvirt = await connect(daemon.testDriver);
      return {
        bench: { libvirt, virtualisation: 'test', arch: 'i686', folder: '/test', bootDisk: async (name) => `/test/${name}` },
        stop: async () => {
          await libvirt.close();
          await daemon.stop();
        },
      };
    },
  },
];

it('lists only behaviours that there are', () => {
  const names = behaviours.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  for (const { unable, only = [] } of drivers) for (const name of [...Object.keys(unable), ...only]) expect(names).toContain(name);
});

for (const driver of drivers) {
  describe(driver.name, () => {
    let running: Awaited<ReturnType<Driver['start']>>;
    let bench: Bench;
    let number = 0;
    beforeAll(async () => {
      running = await driver.start();
      bench = { ...running.bench, unique: (word) => `contract-${word}-${(number += 1)}`, patienceMs: 20_000 };
    }, 120_000);
    afterAll(async () => {
      await running?.stop();
    });
    for (const { name, run } of behaviours) {
      if (driver.only?.includes(name) === false) continue;
      const reason = driver.unable[name];
      if (reason === undefined) it(name, () => run(bench), 240_000);
      else it(`not: ${name} (${reason})`, () => expect(run({ ...bench, patienceMs: 200 })).rejects.toThrow());
    }
  });
}

describe('the fake daemon', () => {
  it('has nothing besides that is not listed', () => {
    expect(served.filter((name) => !calledOnFake.has(name)).sort()).toEqual([...beyondTheContract].sort());
  });
});
