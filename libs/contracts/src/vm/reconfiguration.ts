/* What a change makes of a machine: the same for whoever decides, carries out or shows it. */
import { deviceName } from './assigned.ts';
import type { AdoptedLayout, AttachedVolume, Nic, Reconfiguration, VmSpec } from './vm.events.ts';

/** The wish with a change in it. A machine that is made larger than it could become can become that large. */
export const specAfterChange = <S extends Omit<VmSpec, 'name' | 'description'> & { readonly name?: string }>(spec: S, { name, vcpus, memoryMib, diskGib, boot, media, drivers, kernel, bootMenu, diskLimits, hostname, cloudInit, expert, addDevice, removeDevice }: Reconfiguration): S => ({
  ...spec, cloudInit: toldAfterChange(spec.cloudInit, hostname, cloudInit),
  ...(name === undefined || spec.name === undefined ? {} : { name }), diskGib: diskGib ?? spec.diskGib, boot: boot ?? spec.boot, media: media === undefined ? spec.media : media, diskLimits: diskLimits === undefined ? spec.diskLimits : diskLimits,
  ...(addDevice === undefined && removeDevice === undefined ? {} : { assigned: [...(spec.assigned ?? []).filter((device) => deviceName(device) !== removeDevice), ...(addDevice === undefined ? [] : [addDevice])] }),
  ...(drivers === undefined ? {} : { drivers }), ...(kernel === undefined ? {} : { kernel }), ...(bootMenu === undefined ? {} : { bootMenu }), ...(expert === undefined ? {} : { expert }),
  vcpus: vcpus ?? spec.vcpus, vcpusMax: Math.max(spec.vcpusMax, vcpus ?? 0),
  memoryMib: memoryMib ?? spec.memoryMib, memoryMibMax: Math.max(spec.memoryMibMax, memoryMib ?? 0),
});

/** New words for cloud-init do not rename the guest unless they say so. A machine without cloud-init is told nothing. */
const toldAfterChange = (told: VmSpec['cloudInit'], hostname: string | undefined, anew: VmSpec['cloudInit'] | undefined): VmSpec['cloudInit'] => {
  const now = anew ?? told;
  const named = hostname ?? anew?.hostname ?? told?.hostname;
  return now === null || named === undefined ? now : { ...now, hostname: named };
};

/** What it is to run at its next boot, with a change in it. */
export const bootRunsAfterChange = <R extends { readonly runId: string }>(runs: readonly R[], { removeBootRun }: Reconfiguration, added: R | undefined): readonly R[] =>
  [...runs.filter(({ runId }) => runId !== removeBootRun), ...(added === undefined ? [] : [added])];

/** The interfaces beside the first, with a change in them; `added` has its address by now. */
export const nicsAfterChange = (nics: readonly Nic[], { removeNic }: Reconfiguration, added: Nic | null): readonly Nic[] =>
  [...nics.filter(({ mac }) => mac !== removeNic), ...(added === null ? [] : [added])];

/** Once a medium of ours is put in, or any is taken out, the one that was found there is nobody's business. */
export const layoutAfterChange = (layout: AdoptedLayout | null, { media }: Reconfiguration): AdoptedLayout | null =>
  (layout?.drive === undefined || media === undefined ? layout : { ...layout, drive: { ...layout.drive, file: null } });

/** The disks beside the first, with a change in them; `added` is the one that came. */
export const volumesAfterChange = (volumes: readonly AttachedVolume[], { changeVolume, detachVolume }: Reconfiguration, added: AttachedVolume | null): readonly AttachedVolume[] => [
  ...volumes.filter(({ volumeId }) => volumeId !== detachVolume?.volumeId).map((volume) => (volume.volumeId !== changeVolume?.volumeId ? volume : {
    ...volume, sizeGib: changeVolume.sizeGib ?? volume.sizeGib, limits: changeVolume.limits === undefined ? volume.limits : changeVolume.limits,
  })),
  ...(added === null ? [] : [added]),
];
