/*
 * Devices beside those that every machine has, for those who know what they do. Only what stands here can be said,
 * and each of it in words of its own: nothing that anybody writes becomes XML, and nothing here reaches the node
 * itself (no paths, no commands, no host devices).
 */
import { z } from 'zod';

/** As libvirt calls CPU models and features; which of them there are is its node's to say. */
const CpuName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, 'must be the name of a CPU model or feature as libvirt has it');

export const Expert = z.strictObject({
  cpu: z.strictObject({
    model: CpuName.describe('Such as Nehalem; host-model and host-passthrough need KVM'),
    features: z.array(z.strictObject({ name: CpuName, policy: z.enum(['require', 'disable', 'optional', 'force', 'forbid']) })).max(64).default([]),
  }).optional().describe('Default: that of its node under KVM, qemu64 without'),
  video: z.strictObject({
    model: z.enum(['vga', 'virtio', 'qxl', 'bochs', 'none']),
    heads: z.int().min(1).max(4).default(1).describe('Screens: more than one with virtio and qxl'),
  }).refine(({ model, heads }) => heads === 1 || model === 'virtio' || model === 'qxl', { path: ['heads'], message: 'must be 1 but for virtio and qxl' }).optional(),
  sound: z.enum(['ich9', 'ac97', 'es1370']).optional(),
  watchdog: z.strictObject({ action: z.enum(['reset', 'shutdown', 'poweroff', 'pause', 'none', 'inject-nmi']).default('reset').describe('When the guest has begun to feed it and does so no more') }).optional(),
  panic: z.boolean().optional().describe('A guest whose kernel panics is crashed, instead of standing still'),
  rng: z.strictObject({ enabled: z.boolean().default(true), bytesPerSecond: z.int().min(16).max(1_048_576).optional() }).optional().describe('Random numbers of the node. Default: as many as it wants'),
  balloon: z.strictObject({ enabled: z.boolean().default(true), autodeflate: z.boolean().default(false).describe('Gives memory back before the guest kills for it'), freePageReporting: z.boolean().default(false) }).optional(),
  usb: z.boolean().optional().describe('A USB controller with a tablet on it, which gives screens a pointer that is where the mouse is'),
}).meta({ id: 'Expert' });
export type Expert = z.infer<typeof Expert>;
