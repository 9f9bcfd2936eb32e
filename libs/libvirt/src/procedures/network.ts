/** Networks, their ports, interfaces of the node, filters. */
import * as parameters from '../parameter-fields.ts';
import { affect, dhcpLease, filter, filterBinding, metadataKinds, network, networkPort, nodeInterface, noFlags, text, textOptional, uuid } from '../layouts.ts';
import { countOf, high, needResults, remote, room } from '../procedure.ts';
import { array, bool, choice, flags, nothing, only, u32 } from '../xdr.ts';

const listMax = 16_384;
const validate = flags({ validate: 1 });

export const networkProcedures = {
  connectListAllNetworks: remote(
    283,
    '0.10.2',
    { needResults, filter: flags({ inactive: 1, active: 2, persistent: 4, transient: 8, autostart: 16, noAutostart: 32 }) },
    only('networks', { networks: array(network, listMax), count: countOf('networks', u32) }),
    high,
  ),
  networkLookupByName: remote(46, '0.2.0', { name: text }, network, high),
  networkLookupByUuid: remote(47, '0.2.0', { uuid }, network, high),
  /** With flags by `networkDefineXmlFlags`. */
  networkDefineXml: remote(41, '0.2.0', { xml: text }, network, high),
  networkDefineXmlFlags: remote(432, '7.7.0', { xml: text, flags: validate }, network, high),
  /** Starts a transient network. */
  networkCreateXml: remote(40, '0.2.0', { xml: text }, network),
  networkCreateXmlFlags: remote(437, '7.8.0', { xml: text, flags: validate }, network, high),
  networkCreate: remote(39, '0.2.0', { network }, nothing),
  networkDestroy: remote(42, '0.2.0', { network }, nothing, high),
  networkUndefine: remote(49, '0.2.0', { network }, nothing, high),
  networkGetXmlDesc: remote(43, '0.2.0', { network, flags: flags({ inactive: 1 }) }, text, high),
  networkGetBridgeName: remote(45, '0.2.0', { network }, text, high),
  networkGetAutostart: remote(44, '0.2.1', { network }, bool, high),
  networkSetAutostart: remote(48, '0.2.1', { network, autostart: bool }, nothing, high),
  networkIsActive: remote(152, '0.7.3', { network }, bool, high),
  networkIsPersistent: remote(153, '0.7.3', { network }, bool, high),
  networkGetDhcpLeases: remote(
    341,
    '1.2.6',
    { network, mac: textOptional, needResults, flags: noFlags },
    only('leases', { leases: array(dhcpLease, 65_536), count: countOf('leases', u32) }),
  ),

  /** `uri` names the element when `kind` is `element`. Error 111 (isNoMetadata) when there is none. */
  networkGetMetadata: remote(445, '9.7.0', { network, kind: choice(metadataKinds, 'element'), uri: textOptional, flags: affect }, text),
  /** Without `metadata`, removes it. `key` is the prefix under which an element is put. */
  networkSetMetadata: remote(
    444,
    '9.7.0',
    { network, kind: choice(metadataKinds, 'element'), metadata: textOptional, key: textOptional, uri: textOptional, flags: affect },
    nothing,
  ),

  networkListAllPorts: remote(404, '5.5.0', { network, needResults, flags: noFlags }, only('ports', { ports: array(networkPort, listMax), count: countOf('ports', u32) }), high),
  networkPortLookupByUuid: remote(405, '5.5.0', { network, uuid }, networkPort, high),
  networkPortCreateXml: remote(406, '5.5.0', { network, xml: text, flags: flags({ reclaim: 1, validate: 2 }) }, networkPort),
  networkPortGetXmlDesc: remote(409, '5.5.0', { port: networkPort, flags: noFlags }, text),
  networkPortGetParameters: remote(407, '5.5.0', { port: networkPort, room: room(16), flags: noFlags }, only('parameters', { parameters: parameters.bandwidth, count: countOf('parameters') })),
  networkPortSetParameters: remote(408, '5.5.0', { port: networkPort, parameters: parameters.bandwidth, flags: noFlags }, nothing),
  networkPortDelete: remote(410, '5.5.0', { port: networkPort, flags: noFlags }, nothing),

  connectListAllInterfaces: remote(
    284,
    '0.10.2',
    { needResults, filter: flags({ inactive: 1, active: 2 }) },
    only('interfaces', { interfaces: array(nodeInterface, listMax), count: countOf('interfaces', u32) }),
    high,
  ),
  interfaceLookupByName: remote(128, '0.6.4', { name: text }, nodeInterface, high),
  interfaceLookupByMacString: remote(129, '0.6.4', { mac: text }, nodeInterface, high),
  interfaceGetXmlDesc: remote(130, '0.6.4', { interface: nodeInterface, flags: flags({ inactive: 1 }) }, text),
  interfaceDefineXml: remote(131, '0.6.4', { xml: text, flags: validate }, nodeInterface, high),
  interfaceUndefine: remote(132, '0.6.4', { interface: nodeInterface }, nothing, high),
  interfaceCreate: remote(133, '0.6.4', { interface: nodeInterface, flags: noFlags }, nothing),
  interfaceDestroy: remote(134, '0.6.4', { interface: nodeInterface, flags: noFlags }, nothing, high),
  interfaceIsActive: remote(156, '0.7.3', { interface: nodeInterface }, bool, high),
  /** Changes from here on can be undone by interfaceChangeRollback, until interfaceChangeCommit. */
  interfaceChangeBegin: remote(220, '0.9.2', { flags: noFlags }, nothing),
  interfaceChangeCommit: remote(221, '0.9.2', { flags: noFlags }, nothing),
  interfaceChangeRollback: remote(222, '0.9.2', { flags: noFlags }, nothing),

  connectListAllNwfilters: remote(286, '0.10.2', { needResults, flags: noFlags }, only('filters', { filters: array(filter, listMax), count: countOf('filters', u32) }), high),
  nwfilterLookupByName: remote(175, '0.8.0', { name: text }, filter, high),
  nwfilterLookupByUuid: remote(176, '0.8.0', { uuid }, filter, high),
  nwfilterDefineXml: remote(180, '0.8.0', { xml: text }, filter, high),
  nwfilterDefineXmlFlags: remote(431, '7.7.0', { xml: text, flags: validate }, filter, high),
  nwfilterUndefine: remote(181, '0.8.0', { filter }, nothing, high),
  nwfilterGetXmlDesc: remote(177, '0.8.0', { filter, flags: noFlags }, text, high),
  connectListAllNwfilterBindings: remote(
    401,
    '4.5.0',
    { needResults, flags: noFlags },
    only('bindings', { bindings: array(filterBinding, listMax), count: countOf('bindings', u32) }),
    high,
  ),
  nwfilterBindingLookupByPortDev: remote(397, '4.5.0', { name: text }, filterBinding, high),
  nwfilterBindingCreateXml: remote(399, '4.5.0', { xml: text, flags: validate }, filterBinding, high),
  nwfilterBindingDelete: remote(400, '4.5.0', { binding: filterBinding }, nothing, high),
  nwfilterBindingGetXmlDesc: remote(398, '4.5.0', { binding: filterBinding, flags: noFlags }, text, high),
} as const;

