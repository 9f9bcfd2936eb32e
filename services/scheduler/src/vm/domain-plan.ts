/* A VM as the node that runs it is told of it. */
import type { DomainPlan } from '@chronovirt/contracts/agent/agent.commands';
import type { BootRun } from '@chronovirt/contracts/boot-job/boot-job';
import type { VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { Layer } from '@chronovirt/contracts/vm/snapshot';
import { type AdoptedLayout, type AttachedVolume, type Nic, platformOf, type VmSpec } from '@chronovirt/contracts/vm/vm.events';

/** Of a node's capacity. */
export interface Share {
  readonly vcpus: number;
  readonly memoryMib: number;
}

export const largerOf = (a: Share, b: Share): Share => ({ vcpus: Math.max(a.vcpus, b.vcpus), memoryMib: Math.max(a.memoryMib, b.memoryMib) });

export interface Machine {
  readonly vmId: VmId;
  readonly spec: VmSpec;
  readonly volumeId: VolumeId;
  /** null: it was adopted, with interfaces of its own. */
  readonly first: Nic | null;
  readonly layout: AdoptedLayout | null;
  /** Beside the first. */
  readonly nics: readonly Nic[];
  readonly volumes: readonly AttachedVolume[];
  /** How often cloud-init was told something else, from 1 on. */
  readonly seedVersion: number;
  /** What it is to run at its next boot. */
  readonly bootRuns?: readonly BootRun[];
  /** The layer that is written, of disks that have others than the one they were made with. */
  readonly layers: ActiveLayers;
}

export type ActiveLayers = Readonly<Partial<Record<VolumeId, Layer>>>;

/** Names may have underscores, and dots and dashes where host names have none. A name begins with a letter or digit, so something is left of it. */
export const hostnameOf = (name: string): string => name.replaceAll('_', '-').split('.').map((label) => label.replaceAll(/^-+|-+$/g, '')).filter((label) => label !== '').join('.');

export const planOf = ({ vmId, spec, volumeId, first, layout, nics, volumes, seedVersion, bootRuns = [], layers }: Machine, isolated = false): DomainPlan => ({
  ...(isolated ? { isolated } : {}),
  name: spec.name, vcpus: spec.vcpus, vcpusMax: spec.vcpusMax, memoryMib: spec.memoryMib, memoryMibMax: spec.memoryMibMax, devices: spec.devices, boot: spec.boot, ...platformOf(spec),
  disks: [{ volumeId, unit: 0, sizeGib: spec.diskGib, limits: spec.diskLimits }, ...volumes].map((disk) => ({ volumeId: disk.volumeId, unit: disk.unit, sizeGib: disk.sizeGib, limits: disk.limits, layer: layers[disk.volumeId] ?? null, target: layout?.disks.find(({ volumeId: own }) => own === disk.volumeId)?.target ?? null })),
  nics: [...(first === null ? [] : [first]), ...nics],
  adopted: layout === null ? null : { macs: layout.macs, ...(layout.drive === undefined ? {} : { drive: layout.drive }), ...(layout.definition === undefined ? {} : { definition: layout.definition }) },
  media: spec.media?.file ?? null,
  ...(layout !== null || (spec.drivers === undefined && spec.osFamily !== 'windows') ? {} : { drivers: spec.drivers?.file ?? null }),
  ...(spec.kernel === undefined || spec.kernel === null ? {} : { kernel: { file: spec.kernel.file, initrd: spec.kernel.initrd?.file ?? null, arguments: spec.kernel.arguments } }),
  ...(spec.assigned === undefined || spec.assigned.length === 0 ? {} : { assigned: spec.assigned }),
  ...(spec.bootMenu === true ? { bootMenu: true } : {}),
  ...(spec.expert === undefined || spec.expert === null ? {} : { expert: spec.expert }),
  ...(bootRuns.length === 0 ? {} : { bootRuns: [...bootRuns] }),
  seed: spec.cloudInit === null ? null : { ...spec.cloudInit, ...(spec.newIdentity === true ? { newIdentity: true } : {}), instanceId: seedVersion === 1 ? vmId : `${vmId}-${String(seedVersion)}`, hostname: spec.cloudInit.hostname ?? hostnameOf(spec.name) },
});
