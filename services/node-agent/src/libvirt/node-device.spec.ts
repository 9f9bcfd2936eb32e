import type { AssignedDevice } from '@chronovirt/contracts/vm/assigned';
import { parseXml } from '@chronovirt/libvirt/xml';
import { describe, expect, it } from 'vitest';
import { aliasOf, assignedXml, elementOf } from '../domain/assigned-xml.ts';
import { aliasesIn, assignableIn } from './node-device.os.ts';

const pci: AssignedDevice = { kind: 'pci', address: '0000:0a:1f.3' };
const usb: AssignedDevice = { kind: 'usb', vendor: '0781', product: '5567' };
const tablet: AssignedDevice = { kind: 'virtual-usb', model: 'tablet' };

describe('A device that was assigned', () => {
  it('is one of the node by where it is, or what it is, and is found again by its alias', () => {
    expect(assignedXml(pci).xml).toBe('<hostdev mode="subsystem" type="pci" managed="yes"><source><address domain="0x0000" bus="0x0a" slot="0x1f" function="0x3"/></source><alias name="ua-cv-pci-0000-0a-1f-3"/></hostdev>');
    expect(assignedXml(usb).xml).toBe('<hostdev mode="subsystem" type="usb" managed="yes"><source><vendor id="0x0781"/><product id="0x5567"/></source><alias name="ua-cv-usb-0781-5567"/></hostdev>');
    expect(assignedXml(tablet).xml).toBe('<input type="tablet" bus="usb"><alias name="ua-cv-virtual-usb-tablet"/></input>');
    const devices = parseXml(`<devices>${[pci, usb, tablet].map((device) => assignedXml(device).xml).join('')}<input type="tablet" bus="usb"><alias name="input0"/></input><hostdev/></devices>`);
    expect(aliasesIn(devices)).toEqual([pci, usb, tablet].map(aliasOf));
    expect([pci, usb, tablet].map((device) => elementOf(aliasOf(device)))).toEqual(['hostdev', 'hostdev', 'input']);
  });
});

describe('A device of the node', () => {
  // As libvirt 9.0 tells of them (its docs/formatnode.rst).
  const ofPci = (more: string, kind = '0x020000') => `<device><name>pci_0000_0a_1f_3</name><capability type='pci'><class>${kind}</class><domain>0</domain><bus>10</bus><slot>31</slot><function>3</function><product id='0x1521'>I350</product><vendor id='0x8086'>Intel</vendor>${more}</capability></device>`;
  const group = "<iommuGroup number='7'><address domain='0x0000' bus='0x0a' slot='0x1f' function='0x3'/></iommuGroup>";
  it('can be lent by PCI behind an IOMMU, and is no bridge', () => {
    expect(assignableIn(ofPci(group))).toEqual({ device: pci, says: 'Intel I350' });
    expect(assignableIn(ofPci(''))).toBeUndefined();
    expect(assignableIn(ofPci(group, '0x060400'))).toBeUndefined();
  });
  it('can be lent by USB, and is no hub of the kernel\'s own', () => {
    const ofUsb = (vendor: string) => `<device><capability type='usb_device'><bus>1</bus><device>2</device><product id='0x5567'>Cruzer Blade</product><vendor id='${vendor}'>SanDisk</vendor></capability></device>`;
    expect(assignableIn(ofUsb('0x0781'))).toEqual({ device: usb, says: 'SanDisk Cruzer Blade' });
    expect(assignableIn(ofUsb('0x1d6b'))).toBeUndefined();
    expect(assignableIn("<device><capability type='net'/></device>")).toBeUndefined();
    expect(assignableIn('<device/>')).toBeUndefined();
  });
});
