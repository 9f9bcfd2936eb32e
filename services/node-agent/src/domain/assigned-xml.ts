/* Devices that were assigned to a machine, in the words of libvirt. Reading them is ../libvirt/node-device.os.ts's. */
import { type AssignedDevice, deviceName } from '@chronovirt/contracts/vm/assigned';
import { element, type Xml } from '../xml.ts';

/** A device of ours is known by this name, which libvirt keeps: it must begin so, and have no other characters than these. */
export const aliasOf = (device: AssignedDevice): string => `${ALIAS}${deviceName(device).replaceAll(/[^a-z0-9]/g, '-')}`;
export const ALIAS = 'ua-cv-';

export const isUsb = ({ kind }: AssignedDevice): boolean => kind !== 'pci';
export const elementOf = (alias: string): 'input' | 'hostdev' => (alias.startsWith(`${ALIAS}virtual-usb-`) ? 'input' : 'hostdev');

export const assignedXml = (device: AssignedDevice): Xml => {
  const alias = element('alias', { name: aliasOf(device) });
  switch (device.kind) {
    case 'pci': {
      const [, domain, bus, slot, fn] = /^(\w+):(\w+):(\w+)\.(\w)$/.exec(device.address) ?? [];
      return element('hostdev', { mode: 'subsystem', type: 'pci', managed: 'yes' }, element('source', {}, element('address', { domain: `0x${domain ?? ''}`, bus: `0x${bus ?? ''}`, slot: `0x${slot ?? ''}`, function: `0x${fn ?? ''}` })), alias);
    }
    case 'usb':
      return element('hostdev', { mode: 'subsystem', type: 'usb', managed: 'yes' }, element('source', {}, element('vendor', { id: `0x${device.vendor}` }), element('product', { id: `0x${device.product}` })), alias);
    case 'virtual-usb':
      return element('input', { type: device.model, bus: 'usb' }, alias);
  }
};
