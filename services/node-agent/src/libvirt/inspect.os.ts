/* Looks at domains in full: what ours are besides what they were told to be, and what others are. */
import { createHash } from 'node:crypto';
import type { VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { Libvirt } from '@chronovirt/libvirt/connection';
import { readDomain } from '@chronovirt/libvirt/domain-xml';
import { isNoDomain } from '@chronovirt/libvirt/errors';
import type { Domain } from '@chronovirt/libvirt/layouts';
import { attributeOf, childOf, childrenOf, parseXml } from '@chronovirt/libvirt/xml';
import type { XmlElement } from '@chronovirt/libvirt/xml';
import { differencesOf } from '../domain/differences.ts';
import { obstaclesOf } from '../domain/foreign.ts';
import type { Compared, DomainPlan, Hypervisor, SeenDomain, Stranger, Told } from '../hypervisor.ts';
import { bootIn, devicesIn, drivesOf, liveDomain, mediumIn } from './live-domain.os.ts';

export interface Identity {
  readonly vmId: VmId;
  readonly generation: number;
}

export interface InspectorPorts {
  readonly fast: Libvirt;
  readonly slow: Libvirt;
  readonly find: (vmId: VmId) => Promise<Domain | undefined>;
  readonly look: (domain: Domain) => Promise<Pick<SeenDomain, 'state' | 'reason'> | undefined>;
  readonly identify: (domain: Domain) => Promise<Identity | undefined>;
  /** Looks where a VM's disks lie now, for `diskPathOf`. */
  readonly locate: (volumeIds: readonly VolumeId[]) => Promise<void>;
  readonly diskPathOf: (disk: DomainPlan['disks'][number]) => string;
  readonly mediaPathOf: (file: string) => string;
  /** A domain as we would define it. */
  readonly xmlOf: (plan: DomainPlan) => string;
}

/** The name a domain was defined with, as its metadata says. */
export const nameGivenIn = (metadata: XmlElement | undefined): string | undefined => childOf(metadata, 'cv:vm')?.attributes['as'];

const digestOf = (...parts: readonly unknown[]): string => createHash('sha256').update(JSON.stringify(parts)).digest('base64');

/** What was compared and need not be again, as long as neither side has become different. */
interface Remembered {
  readonly told: Told;
  readonly texts: string;
  readonly compared: Compared;
}

export function createInspector({ fast, slow, find, look, identify, locate, diskPathOf, mediaPathOf, xmlOf }: InspectorPorts): Pick<Hypervisor, 'compare' | 'strangers'> {
  const remembered = new Map<VmId, Remembered>();
  const ofStrangers = new Map<string, { readonly texts: string; readonly stranger: Stranger }>();
  const snapshotsOf = async (domain: Domain): Promise<readonly string[]> => (await fast.domainListAllSnapshots({ domain })).map(({ name }) => name);

  const compareNow = async (told: Told, domain: Domain): Promise<Compared | undefined> => {
    const seen = await look(domain);
    if (seen === undefined || seen.state === 'absent') return undefined;
    const { state, reason } = seen;
    const running = state === 'running' || state === 'paused';
    const [defined, live, persistent, snapshots] = await Promise.all([
      slow.domainGetXmlDesc({ domain, flags: ['inactive'] }), running ? slow.domainGetXmlDesc({ domain }) : '', fast.domainIsPersistent({ domain }), snapshotsOf(domain),
    ]);
    await locate(told.plan.disks.map(({ volumeId }) => volumeId));
    const paths = told.plan.disks.map(diskPathOf);
    const texts = digestOf(paths, state, reason, persistent, snapshots.join(), defined, live);
    const before = remembered.get(told.plan.vmId);
    if (before?.told === told && before.texts === texts) return before.compared;
    const devices = told.plan.adopted === null ? devicesIn(childOf(parseXml(xmlOf(told.plan)), 'devices')) : liveDomain(defined).devices;
    const differences = differencesOf(told, {
      state, reason, name: domain.name, nameGiven: nameGivenIn(readDomain(defined).metadata), persistent, snapshots,
      defined: liveDomain(defined, told.plan.adopted), running: running ? liveDomain(live, told.plan.adopted) : undefined,
    }, { diskPathOf, mediaPathOf, devices });
    const compared: Compared = { state, reason, differences };
    remembered.set(told.plan.vmId, { told, texts, compared });
    return compared;
  };

  const describe = async (domain: Domain, identity: Identity | undefined): Promise<Stranger | undefined> => {
    const seen = await look(domain);
    if (seen === undefined) return undefined;
    const [xml, persistent, snapshots] = await Promise.all([slow.domainGetXmlDesc({ domain }), fast.domainIsPersistent({ domain }), snapshotsOf(domain)]);
    const texts = digestOf(seen.state, persistent, snapshots.join(), identity?.generation, xml);
    const before = ofStrangers.get(domain.uuid);
    if (before?.texts === texts) return before.stranger;
    const { disks, interfaces, root } = readDomain(xml);
    const machine = liveDomain(xml);
    const devices = childOf(root, 'devices');
    const elements = childrenOf(devices, 'disk');
    const shapes = disks.map((disk, index) => {
      const element = elements[index];
      const isFile = (element?.attributes['type'] ?? 'file') === 'file';
      return { ...disk, file: isFile ? disk.path : undefined, shared: childOf(element, 'shareable') !== undefined };
    });
    const files = shapes.flatMap(({ device, target, file, format }) => (device === 'disk' && file !== undefined ? [{ target, file, format: format ?? 'raw' }] : []));
    const nics = interfaces.flatMap(({ mac, kind, network, bridge }) => (mac === undefined ? [] : [{ mac, kind, source: network ?? bridge ?? null }]));
    const { media: drive } = drivesOf(devices, { macs: [] });
    const driveTarget = drive === undefined ? null : attributeOf(drive, 'dev', 'target') ?? null;
    const sized = await Promise.all(files.slice(0, 24).map(async ({ target, file, format }) => {
      const bytes = await slow.domainGetBlockInfo({ domain, path: target }).then(({ capacityBytes }) => capacityBytes, () => 0);
      return { target, file: file.slice(0, 1_000), format, bytes };
    }));
    const stranger: Stranger = {
      vmId: identity?.vmId ?? null, generation: identity?.generation ?? 0,
      domain: {
        uuid: domain.uuid, name: domain.name.slice(0, 300), state: seen.state, vcpus: machine.vcpus, vcpusMax: machine.vcpusMax, memoryMib: machine.memoryMib, memoryMibMax: Math.max(machine.memoryMib, machine.memoryMibMax), persistent,
        disks: sized, nics: nics.slice(0, 16), boot: [...bootIn(root)], drive: { target: driveTarget, file: drive === undefined ? null : mediumIn(drive) ?? null },
        obstacles: [...obstaclesOf({ persistent, memoryMib: machine.memoryMib, disks: shapes, nics, devices: machine.devices, snapshots })],
      },
    };
    ofStrangers.set(domain.uuid, { texts, stranger });
    return stranger;
  };

  return {
    compare: async (told) => {
      const domain = await find(told.plan.vmId);
      try {
        return domain === undefined ? undefined : await compareNow(told, domain);
      } catch (error) {
        // It went away while it was looked at.
        if (isNoDomain(error)) return undefined;
        throw error;
      }
    },
    strangers: async (besides) => {
      const all = await fast.connectListAllDomains();
      const uuids = new Set(all.map(({ uuid }) => uuid));
      for (const uuid of ofStrangers.keys()) if (!uuids.has(uuid)) ofStrangers.delete(uuid);
      for (const vmId of remembered.keys()) if (!besides.has(vmId)) remembered.delete(vmId);
      const found: Stranger[] = [];
      for (const domain of all) {
        const identity = await identify(domain);
        if (identity !== undefined && besides.has(identity.vmId)) continue;
        const stranger = await describe(domain, identity).catch((error: unknown) => {
          if (isNoDomain(error)) return undefined;
          throw error;
        });
        if (stranger !== undefined) found.push(stranger);
      }
      return found;
    },
  };
}
