/** Devices of the node, and secrets. */
import { affect, nodeDevice, noFlags, secret, secretUsages, text, textOptional, uuid } from '../layouts.ts';
import { countOf, high, needResults, remote, room } from '../procedure.ts';
import { array, bool, bytes, flags, i32, named, nothing, only, u32 } from '../xdr.ts';

const validate = flags({ validate: 1 });

export const nodeDeviceProcedures = {
  connectListAllNodeDevices: remote(
    285,
    '0.10.2',
    {
      needResults,
      filter: flags({
        system: 1 << 0,
        pci: 1 << 1,
        usb: 1 << 2,
        usbInterface: 1 << 3,
        net: 1 << 4,
        scsiHost: 1 << 5,
        scsiTarget: 1 << 6,
        scsi: 1 << 7,
        storage: 1 << 8,
        fcHost: 1 << 9,
        vports: 1 << 10,
        scsiGeneric: 1 << 11,
        drm: 1 << 12,
        mdevTypes: 1 << 13,
        mdev: 1 << 14,
        ccw: 1 << 15,
        css: 1 << 16,
        vdpa: 1 << 17,
        apCard: 1 << 18,
        apQueue: 1 << 19,
        apMatrix: 1 << 20,
        vpd: 1 << 21,
        ccwgroupDevice: 1 << 22,
        ccwgroupMember: 1 << 23,
        persistent: 1 << 28,
        transient: 1 << 29,
        inactive: 1 << 30,
        active: 0x8000_0000,
      }),
    },
    only('devices', { devices: array(nodeDevice, 65_536), count: countOf('devices', u32) }),
    high,
  ),
  nodeDeviceLookupByName: remote(113, '0.5.0', { name: text }, nodeDevice, high),
  nodeDeviceLookupScsiHostByWwn: remote(297, '1.0.3', { wwnn: text, wwpn: text, flags: noFlags }, nodeDevice, high),
  nodeDeviceGetXmlDesc: remote(114, '0.5.0', { name: text, flags: flags({ inactive: 1 }) }, text),
  nodeDeviceGetParent: remote(115, '0.5.0', { name: text }, textOptional, high),
  nodeDeviceNumOfCaps: remote(116, '0.5.0', { name: text }, i32, high),
  nodeDeviceListCaps: remote(117, '0.5.0', { name: text, room: room(1_024) }, array(text, 65_536), high),
  /** Starts a transient device (a mediated one, a virtual host bus adapter). */
  nodeDeviceCreateXml: remote(123, '0.6.3', { xml: text, flags: validate }, nodeDevice),
  nodeDeviceDestroy: remote(124, '0.6.3', { name: text }, nothing, high),
  nodeDeviceDefineXml: remote(428, '7.3.0', { xml: text, flags: validate }, nodeDevice),
  nodeDeviceUndefine: remote(429, '7.3.0', { name: text, flags: noFlags }, nothing, high),
  nodeDeviceCreate: remote(430, '7.3.0', { name: text, flags: noFlags }, nothing, high),
  nodeDeviceGetAutostart: remote(433, '7.8.0', { name: text }, bool, high),
  nodeDeviceSetAutostart: remote(434, '7.8.0', { name: text, autostart: bool }, nothing, high),
  nodeDeviceIsActive: remote(436, '7.8.0', { name: text }, bool, high),
  /** Changes a mediated device: `live`, or its definition, or (without flags) what there is. */
  nodeDeviceUpdate: remote(447, '10.1.0', { name: text, xml: text, flags: affect }, nothing, high),
  nodeDeviceIsPersistent: remote(435, '7.8.0', { name: text }, bool, high),
  /** Takes a device from its driver, so that a guest may have it. */
  nodeDeviceDetachFlags: remote(301, '1.0.5', { name: text, driver: textOptional, flags: noFlags }, nothing),
  nodeDeviceReAttach: remote(119, '0.6.1', { name: text }, nothing),
  nodeDeviceReset: remote(120, '0.6.1', { name: text }, nothing),

  connectListAllSecrets: remote(
    287,
    '0.10.2',
    { needResults, filter: flags({ ephemeral: 1, noEphemeral: 2, private: 4, noPrivate: 8 }) },
    only('secrets', { secrets: array(secret, 16_384), count: countOf('secrets', u32) }),
    high,
  ),
  secretLookupByUuid: remote(141, '0.7.1', { uuid }, secret, high),
  secretLookupByUsage: remote(147, '0.7.1', { usage: named(secretUsages), usageId: text }, secret, high),
  secretDefineXml: remote(142, '0.7.1', { xml: text, flags: validate }, secret, high),
  secretSetValue: remote(144, '0.7.1', { secret, value: bytes(65_536), flags: noFlags }, nothing, high),
  secretGetValue: remote(145, '0.7.1', { secret, flags: noFlags }, bytes(65_536), high),
  secretGetXmlDesc: remote(143, '0.7.1', { secret, flags: noFlags }, text, high),
  secretUndefine: remote(146, '0.7.1', { secret }, nothing, high),
} as const;
