/* What experts say of devices (contracts/vm/expert.ts) as XML of ours. Without a word of theirs it is what every machine has. */
import type { Expert } from '@chronovirt/contracts/vm/expert';
import { element, type Xml } from '../xml.ts';

/** The same text for the same wish, whatever the order of its fields; it stands in the domain's metadata, so that what runs can be compared. */
export const expertText = (expert: Expert | undefined): string => (expert === undefined ? '' : JSON.stringify(sorted(expert)));

const sorted = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, one]) => [key, sorted(one)]));
};

export const needsKvm = ({ cpu }: Expert): boolean => cpu?.model === 'host-model' || cpu?.model === 'host-passthrough';

export const expertCpu = ({ model, features }: NonNullable<Expert['cpu']>, numa: Xml | undefined): Xml => {
  const list = features.map(({ name, policy }) => element('feature', { policy, name }));
  return model === 'host-model' || model === 'host-passthrough'
    ? element('cpu', { mode: model, check: model === 'host-model' ? 'partial' : 'none' }, ...list, numa)
    : element('cpu', { mode: 'custom', match: 'exact', check: 'none' }, element('model', { fallback: 'forbid' }, model), ...list, numa);
};

/** Random numbers are given away in a period of so many milliseconds. */
const RNG_PERIOD_MS = 1_000;

export const expertDevices = ({ video, sound, watchdog, panic, rng, balloon, usb }: Expert): readonly Xml[] => [
  ...(usb === true ? [element('input', { type: 'tablet', bus: 'usb' })] : []),
  ...(sound === undefined ? [] : [element('sound', { model: sound })]),
  element('video', {}, element('model', { type: video?.model ?? 'vga', heads: video === undefined || video.heads === 1 ? undefined : video.heads })),
  ...(watchdog === undefined ? [] : [element('watchdog', { model: 'i6300esb', action: watchdog.action })]),
  balloon?.enabled === false ? element('memballoon', { model: 'none' })
    : element('memballoon', { model: 'virtio', autodeflate: balloon?.autodeflate === true ? 'on' : undefined, freePageReporting: balloon?.freePageReporting === true ? 'on' : undefined }),
  ...(rng?.enabled === false ? [] : [element('rng', { model: 'virtio' }, rng?.bytesPerSecond === undefined ? undefined : element('rate', { bytes: rng.bytesPerSecond, period: RNG_PERIOD_MS }), element('backend', { model: 'random' }, '/dev/urandom'))]),
  ...(panic === true ? [element('panic', { model: 'isa' })] : []),
];
