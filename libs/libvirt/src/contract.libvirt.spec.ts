/*
 * The contract (contract.ts) on every kind of daemon. What a driver cannot do is listed with the reason,
 * and is run all the same: once it can, the list is wrong and says so.
 */
import { join } from 'node:path';
import { guestImage } from '../../../tools/guest-image.ts';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { answerToFlag, behaviours, endsInFlags, flagged } from './testing-contract.ts';
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
  readonly start: () => Promise<{
    readonly bench: Omit<Bench, 'unique' | 'patienceMs'>;
    readonly stop: () => Promise<void>;
    /** How often each procedure was called, of a fake. */
    readonly calls?: () => ReadonlyMap<string, number>;
  }>;
}

/** What only a daemon that may make bridges and taps can show. */
const ofTheSystem = [
  'keeps networks, starts and stops them, and changes them while they run',
  'does not start a domain whose network is off or not there',
  'keeps a network that is gone when it stops, until it is defined',
  "counts at the node's end of an interface, and keeps the limits for what will start",
];
const onTheSystem = [...ofTheSystem, 'lists what there is of networks, filters, secrets and devices, in every form', 'knows the loopback as a device and as an interface'];
const noBridge = 'the daemon of an ordinary user can make no bridge: see the system daemon';

/** What the contract called on the fake, and did not only see refused for its flags. */
const calledOnFake = new Set<string>();

const drivers: readonly Driver[] = [
  {
    name: 'the fake daemon',
    unable: {},
    start: async () => {
      const migrations = new Migrations();
      const [daemon, other] = ['one', 'two'].map((hostname) => new FakeDaemon({ hostname, migrations, jobMs: 20, guest: { bootMs: 50, shutdownMs: 20 } })) as [FakeDaemon, FakeDaemon];
      const [libvirt, there] = [await connect(targetOf(daemon)), await connect(targetOf(other))];
      const calls = () => new Map([...other.calls].concat([...daemon.calls]).map(([name]) => [name, (daemon.calls.get(name) ?? 0) + (other.calls.get(name) ?? 0)]));
      return {
        calls,
        bench: { libvirt, virtualisation: 'qemu', arch: 'x86_64', folder: '/fake', other: { libvirt: there, uri: 'qemu+tcp://two/system' }, bootDisk: async (name) => `/fake/${name}` },
        stop: async () => {
          await Promise.all([libvirt.close(), there.close()]);
          await Promise.all([daemon.close(), other.close()]);
        },
      };
    },
  },
  {
    name: 'QEMU',
    unable: Object.fromEntries(ofTheSystem.filter((name) => name !== 'does not start a domain whose network is off or not there').map((name) => [name, noBridge])),
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
    only: onTheSystem,
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
          'knows the loopback as a device and as an interface',
          'tells what QEMU says on its monitor, and that somebody spoke there',
          'changes a medium and a link of what is started, and not what is soldered in',
          'counts and names snapshots, and pulls the images between into the disk',
          'copies the disk of a transient domain in the older form, at the speed that it is told, and goes on with the copy',
          'is told how often to ask the balloon, and says what it has of labels, jobs and traffic',
          'refuses flags that nobody knows, whatever it is asked',
          'refuses flags that others know',
        ].map((name) => [name, 'it runs no guests: no devices to plug, no disks, no agent']),
      ),
      'describes its processors and its memory': 'no memory statistics',
      'fills in what a definition leaves out, and keeps the rest': 'its CPU time is the wall clock, also of a domain that is off',
      'starts a domain that stands still, and forgets a transient one when it stops': 'no flag for it',
      'rests in a file that somebody names, and goes on from it': 'its folders are made up, and it would write a real file',
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
      'lists what there is of networks, filters, secrets and devices, in every form': 'no filters',
      'forgets a saved state when told so': 'knows of none to forget, and says nothing',
      'keeps a network that is gone when it stops, until it is defined': 'no ports',
      'starts a pool that nobody defined, and forgets it when it stops': 'needs no folder',
      "counts at the node's end of an interface, and keeps the limits for what will start": 'makes its counters up, of errors too',
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
    /** What was called since. */
    const note = (before: ReadonlyMap<string, number> = new Map()) => {
      for (const [call, count] of running.calls?.() ?? []) if (count > (before.get(call) ?? 0)) calledOnFake.add(call);
    };
    beforeAll(async () => {
      running = await driver.start();
      note();
      bench = { ...running.bench, unique: (word) => `contract-${word}-${(number += 1)}`, patienceMs: 20_000 };
    }, 120_000);
    afterAll(async () => {
      const before = running?.calls?.();
      await running?.stop();
      note(before);
    });
    for (const { name, run, onlyRefusals } of behaviours) {
      if (driver.only?.includes(name) === false) continue;
      const reason = driver.unable[name];
      if (reason === undefined) {
        it(name, async () => {
          const before = running.calls?.();
          await run(bench);
          if (onlyRefusals !== true) note(before);
        }, 240_000);
      } else it(`not: ${name} (${reason})`, () => expect(run({ ...bench, patienceMs: 200 })).rejects.toThrow());
    }
  });
}

describe('the fake daemon', () => {
  it('has nothing that no behaviour calls', () => {
    expect(served.filter((name) => !calledOnFake.has(name))).toEqual([]);
  });

  it('is asked with a flag that nobody knows wherever it has flags', () => {
    expect(served.filter((name) => name !== 'connectOpen' && endsInFlags(name)).sort()).toEqual([...flagged].sort());
  });

  it('takes no flag that QEMU refuses', async () => {
    const daemon = await startLibvirtd();
    const fake = new FakeDaemon();
    const [libvirt, pretended] = [await connect(daemon.qemuSession), await connect(targetOf(fake))];
    try {
      const taken: string[] = [];
      let refusals = 0;
      for (const name of flagged) {
        for (let bit = 0; bit < 32; bit += 1) {
          const flag = 2 ** bit;
          if (!(await answerToFlag(libvirt, name, flag)).reason.includes('unsupported flags')) continue;
          refusals += 1;
          if (!(await answerToFlag(pretended, name, flag)).reason.includes('unsupported flags')) taken.push(`${name} ${flag}`);
        }
      }
      expect(taken).toEqual([]);
      expect(refusals).toBeGreaterThan(flagged.length * 15);
    } finally {
      await Promise.all([libvirt.close(), pretended.close()]);
      await Promise.all([daemon.stop(), fake.close()]);
    }
  }, 120_000);
});
