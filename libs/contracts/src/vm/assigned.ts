/*
 * Devices that a machine has beside disks and interfaces: those of the node that runs it, which one machine has for
 * itself and which bind it to that node, and those that QEMU makes, which bind it to nothing.
 */
import { z } from 'zod';

const Hex4 = z.string().regex(/^[0-9a-f]{4}$/, 'must be four hexadecimal digits');

export const AssignedDevice = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('pci'), address: z.string().regex(/^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/, 'must be such as 0000:01:00.0').describe('On its node, which has to show it to guests by an IOMMU') }),
  z.strictObject({ kind: z.literal('usb'), vendor: Hex4, product: Hex4 }),
  z.strictObject({ kind: z.literal('virtual-usb'), model: z.enum(['tablet', 'mouse', 'keyboard']) }),
]).meta({ id: 'AssignedDevice' });
export type AssignedDevice = z.infer<typeof AssignedDevice>;

/** What it is called: the same on every node, and unique on one. */
export const deviceName = (device: AssignedDevice): string => {
  switch (device.kind) {
    case 'pci': return `pci-${device.address}`;
    case 'usb': return `usb-${device.vendor}:${device.product}`;
    case 'virtual-usb': return `virtual-usb-${device.model}`;
  }
};
export const DeviceName = z.string().regex(/^(pci|usb|virtual-usb)-[0-9a-z:.]{1,40}$/);

export const isOfNode = ({ kind }: AssignedDevice): boolean => kind !== 'virtual-usb';
export const ASSIGNED_MAX = 16;

/** One that a node can lend. */
export const AssignableDevice = z.object({ device: AssignedDevice, says: z.string().max(200) });
export type AssignableDevice = z.infer<typeof AssignableDevice>;
export const ASSIGNABLE_MAX = 256;
