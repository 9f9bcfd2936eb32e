import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import { describe, expect, it } from 'vitest';
import { changesOf, type LiveDomain } from './changes.ts';
import { smallPlan } from './testing-plan.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const network: NetworkPlan = { networkId: `network_${hex(5)}`, subnetId: `subnet_${hex(6)}`, name: 'cv-default', kind: 'nat', cidr: '10.21.0.0/24', gateway: '10.21.0.1', prefix: 24, bridge: 'cv-br0' };
const mac = '52:54:0a:15:00:05';
const live: LiveDomain = { vcpus: 2, vcpusMax: 4, memoryMib: 512, memoryMibMax: 2_048, boot: ['disk'], bootMenu: false, kernel: null, media: undefined, drivers: null, seed: null, expert: '', assigned: [], usb: false, macs: [mac], disks: [{ path: `/pool/volume_${hex(3)}`, limits: null }] };
const paths = { mediaPathOf: (file: string) => `/images/${file}`, diskPathOf: ({ volumeId }: { readonly volumeId: string }) => `/pool/${volumeId}`, seedPath: undefined };
const wantedPlan = () => smallPlan({ volumeId: `volume_${hex(3)}`, network, mac, address: '10.21.0.5' });
const wanted = (more: Parameters<typeof smallPlan>[1] = {}) =>
  changesOf(live, { nodeId: `node_${hex(1)}`, vmId: `vm_${hex(2)}`, generation: 1, ...smallPlan({ volumeId: `volume_${hex(3)}`, network, mac, address: '10.21.0.5' }, { vcpus: 2, vcpusMax: 4, memoryMib: 512, memoryMibMax: 2_048, ...more }) }, paths);

describe('What has to be done to a domain that runs', () => {
  it('is nothing when it is as it should be', () => expect(wanted()).toEqual({ changes: [], pending: [] }));
  it('is to give it more CPUs, as far as there is room; fewer wait for a start', () => {
    expect(wanted({ vcpus: 4 })).toEqual({ changes: [{ kind: 'vcpus', vcpus: 4 }], pending: [] });
    expect(wanted({ vcpus: 8, vcpusMax: 8 })).toEqual({ changes: [], pending: ['vcpus'] });
    expect(wanted({ vcpus: 1 })).toEqual({ changes: [], pending: ['vcpus'] });
  });
  it('is to give it more memory by whole sections; anything else waits', () => {
    expect(wanted({ memoryMib: 768 })).toEqual({ changes: [{ kind: 'memory', mib: 256 }], pending: [] });
    expect(wanted({ memoryMib: 600 })).toEqual({ changes: [], pending: ['memoryMib'] });
    expect(wanted({ memoryMib: 4_096 })).toEqual({ changes: [], pending: ['memoryMib'] });
    expect(wanted({ memoryMib: 256 })).toEqual({ changes: [], pending: ['memoryMib'] });
  });
  it('is to put in a medium, change it, or take it out, where there is a drive', () => {
    expect(wanted({ media: 'one.iso' }).changes).toEqual([{ kind: 'media', path: '/images/one.iso' }]);
    const plan = { nodeId: `node_${hex(1)}`, vmId: `vm_${hex(2)}`, generation: 1, ...smallPlan({ volumeId: `volume_${hex(3)}`, network, mac, address: '10.21.0.5' }, { vcpus: 2, memoryMib: 512 }) } as const;
    expect(changesOf({ ...live, media: '/images/one.iso' }, plan, paths).changes).toEqual([{ kind: 'media', path: undefined }]);
    expect(changesOf({ ...live, media: null }, { ...plan, media: 'one.iso' }, paths).changes).toEqual([]);
  });
  it('is left to the next start where it is what starts it', () => {
    const kernel = { file: 'vmlinuz', initrd: 'root', arguments: 'quiet' };
    const there = { path: '/images/vmlinuz', initrd: '/images/root', arguments: 'quiet' };
    const pendingOf = (now: Partial<LiveDomain>, more: Parameters<typeof smallPlan>[1]) => changesOf({ ...live, ...now }, { nodeId: `node_${hex(1)}`, vmId: `vm_${hex(2)}`, generation: 1, ...wantedPlan(), vcpus: 2, vcpusMax: 4, memoryMib: 512, memoryMibMax: 2_048, ...more }, paths);
    expect(pendingOf({ kernel: there, bootMenu: true }, { kernel, bootMenu: true })).toEqual({ changes: [], pending: [] });
    for (const [now, more] of [[{ kernel: there }, {}], [{}, { kernel }], [{ kernel: { ...there, initrd: null } }, { kernel }], [{ kernel: there }, { kernel: { ...kernel, arguments: '' } }], [{}, { bootMenu: true }], [{ bootMenu: true }, {}], [{ bootMenu: true, boot: ['cdrom'] }, {}]] as const) expect(pendingOf(now as Partial<LiveDomain>, more)).toEqual({ changes: [], pending: ['boot'] });
  });
  it('is to plug in what was assigned to it and take out what was not; by USB only where there is such a bus', () => {
    const pci = { kind: 'pci', address: '0000:01:00.0' } as const;
    const tablet = { kind: 'virtual-usb', model: 'tablet' } as const;
    const of = (now: Partial<LiveDomain>, assigned?: (typeof pci | typeof tablet)[]) => changesOf({ ...live, ...now }, { nodeId: `node_${hex(1)}`, vmId: `vm_${hex(2)}`, generation: 1, ...wantedPlan(), vcpus: 2, vcpusMax: 4, memoryMib: 512, memoryMibMax: 2_048, ...(assigned === undefined ? {} : { assigned }) }, paths);
    expect(of({}, [pci, tablet])).toEqual({ changes: [{ kind: 'add device', device: pci }], pending: ['devices'] });
    expect(of({ usb: true, assigned: ['ua-cv-pci-0000-01-00-0'] }, [pci, tablet])).toEqual({ changes: [{ kind: 'add device', device: tablet }], pending: [] });
    expect(of({ usb: true, assigned: ['ua-cv-pci-0000-01-00-0', 'ua-cv-virtual-usb-tablet'] }, [tablet])).toEqual({ changes: [{ kind: 'remove device', alias: 'ua-cv-pci-0000-01-00-0' }], pending: [] });
    expect(of({ assigned: ['ua-cv-usb-1234-abcd'] }).changes).toHaveLength(1);
  });
  it('is the same with the second drive, where there is one', () => {
    const second = (there: string | undefined | null, drivers?: string | null) => changesOf({ ...live, drivers: there }, { nodeId: `node_${hex(1)}`, vmId: `vm_${hex(2)}`, generation: 1, ...wantedPlan(), vcpus: 2, vcpusMax: 4, memoryMib: 512, memoryMibMax: 2_048, ...(drivers === undefined ? {} : { drivers }) }, paths).changes;
    expect([second(undefined, null), second(null, 'one.iso'), second('/images/one.iso', 'one.iso')]).toEqual([[], [], []]);
    expect(second(undefined, 'one.iso')).toEqual([{ kind: 'drivers', path: '/images/one.iso' }]);
    for (const none of [null, undefined]) expect(second('/images/one.iso', none)).toEqual([{ kind: 'drivers', path: undefined }]);
  });
  it('is to put in another disk for cloud-init where it is the same instance; another instance waits for a start', () => {
    const plan = { nodeId: `node_${hex(1)}`, vmId: `vm_${hex(2)}`, generation: 1, ...wantedPlan(), vcpus: 2, vcpusMax: 4, memoryMib: 512, memoryMibMax: 2_048 } as const;
    const seeded = (seed: string | null, seedPath: string | undefined) => changesOf({ ...live, seed }, plan, { ...paths, seedPath });
    expect(seeded('/pool/vm_1.seed.iso', '/pool/vm_1.seed.iso')).toEqual({ changes: [], pending: [] });
    expect(seeded('/pool/vm_1.seed.iso', '/pool/vm_1.0a1b.seed.iso')).toEqual({ changes: [{ kind: 'seed', path: '/pool/vm_1.0a1b.seed.iso' }], pending: [] });
    expect(seeded('/pool/vm_1.0a1b.seed.iso', '/pool/vm_1-2.seed.iso')).toEqual({ changes: [], pending: ['cloudInit'] });
    expect(seeded(null, '/pool/vm_1.seed.iso')).toEqual({ changes: [], pending: ['cloudInit'] });
  });
  it('is to unplug what goes before plugging in what comes', () => {
    const nic = { network, mac: '52:54:0a:16:00:02', address: '10.22.0.2' };
    expect(wanted({ nics: [nic] }).changes).toEqual([{ kind: 'remove nic', mac }, { kind: 'add nic', nic }]);
  });
  it('is to attach and detach disks by what they are, not by where they stand, and to limit them', () => {
    const [first] = wantedPlan().disks;
    if (first === undefined) throw new Error('no disk');
    const second = { volumeId: `volume_${hex(9)}`, unit: 4, sizeGib: 1, limits: null, layer: null, target: null } as const;
    expect(wanted({ disks: [first, second] }).changes).toEqual([{ kind: 'add disk', disk: second }]);
    expect(wanted({ disks: [second] }).changes).toEqual([{ kind: 'remove disk', path: `/pool/volume_${hex(3)}` }, { kind: 'add disk', disk: second }]);
    const limited = { ...first, limits: { iops: 100 } };
    expect(wanted({ disks: [limited] }).changes).toEqual([{ kind: 'limits', disk: limited }]);
  });
  it('leaves what cloud-init is told to the next start, unless it is what it was told', () => {
    const plan = { nodeId: `node_${hex(1)}`, vmId: `vm_${hex(2)}`, generation: 1, ...smallPlan({ volumeId: `volume_${hex(3)}`, network, mac, address: '10.21.0.5' }, { vcpus: 2, memoryMib: 512 }) } as const;
    const told = { ...live, seed: '/pool/vm_1.seed.iso' };
    expect(changesOf(told, plan, { ...paths, seedPath: '/pool/vm_1.seed.iso' }).pending).toEqual([]);
    expect(changesOf(told, plan, { ...paths, seedPath: '/pool/vm_1-2.seed.iso' }).pending).toEqual(['cloudInit']);
    expect(changesOf(live, plan, { ...paths, seedPath: '/pool/vm_1.seed.iso' }).pending).toEqual(['cloudInit']);
  });
  it('leaves the order of booting for the next start', () => expect(wanted({ boot: ['cdrom', 'disk'] })).toEqual({ changes: [], pending: ['boot'] }));
});
