import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readDomain } from './domain-xml.ts';
import { readNetwork } from './network-xml.ts';
import { attributeOf, buildXml, childInNamespace, childOf, childrenOf, element, parseXml, textOf, XmlError } from './xml.ts';
import type { XmlElement } from './xml.ts';

// Anything a person can type; a carriage return too, which XML would otherwise turn into a line feed.
const writable = fc.string({ unit: fc.constantFrom(...'abé<>&"\' \t\n\r;#x41];-😀'.match(/./gsu) ?? []), minLength: 1, maxLength: 12 });
const name = fc.constantFrom('a', 'b', 'cv:vm', 'x-y');
const attributes = fc.dictionary(fc.constantFrom('id', 'xmlns:cv', 'value'), writable, { maxKeys: 3, noNullPrototype: true });
const { tree } = fc.letrec<{ tree: XmlElement }>((tie) => ({
  tree: fc.record({ name, attributes, children: fc.oneof({ maxDepth: 4 }, fc.constant([]), writable.map((text) => [text]), fc.array(tie('tree'), { maxLength: 3 })) }),
}));

describe('a tree', () => {
  it('is read as it was built, whatever its values are', () =>
    fc.assert(
      fc.property(tree, (value) => {
        expect(parseXml(buildXml(value))).toEqual(value);
      }),
      { numRuns: 500 },
    ));

  it('keeps order, and text between elements', () => {
    const xml = '<a><b/>one<c x="1"/>two<b/></a>';
    expect(buildXml(parseXml(xml))).toBe(xml);
  });

  it('leaves out what is undefined', () => {
    expect(buildXml(element('disk', { type: 'file', dev: undefined }, element('target', { dev: 'vda' }), undefined, 7))).toBe('<disk type="file"><target dev="vda"/>7</disk>');
  });

  it('decodes references once', () => {
    const root = parseXml('<a x="&#x41;&amp;lt;">&amp;#233; &#233; <![CDATA[<raw>&amp;]]><!-- no --></a>');
    expect(root.attributes['x']).toBe('A&lt;');
    expect(textOf(root)).toBe('&#233; é <raw>&amp;');
    expect(parseXml('<a><![CDATA[ x ]]></a>').children).toEqual([' x ']);
  });

  it('finds by name and by namespace', () => {
    const root = parseXml('<m><cv:vm xmlns:cv="urn:one"/><cv:vm xmlns:cv="urn:two" id="2"/><vm xmlns="urn:three" id="3"/></m>');
    expect(childInNamespace(root, 'urn:two')?.attributes['id']).toBe('2');
    expect(childInNamespace(root, 'urn:three')?.attributes['id']).toBe('3');
    expect(childInNamespace(root, 'urn:four')).toBeUndefined();
    expect(childrenOf(root, 'cv:vm').length).toBe(2);
    expect(attributeOf(root, 'id', 'vm')).toBe('3');
    expect(childOf(root, 'vm', 'no')).toBeUndefined();
  });
});

describe('XML that is refused', () => {
  it.each([
    ['an open element', '<a><b></a>'],
    ['nothing', ''],
    ['text alone', 'text'],
    ['two roots', '<a/><b/>'],
    ['an attribute without quotes', '<a b=c/>'],
    ['a document type', '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'],
    ['more than libvirt can send', `<a>${'x'.repeat(4_194_304)}</a>`],
    ['a tower of elements', '<a>'.repeat(50_000) + '</a>'.repeat(50_000)],
  ])('%s', (_what, xml) => expect(() => parseXml(xml)).toThrow(XmlError));

  it.each([
    ['a control character', element('a', {}, 'x\u0000')],
    ['a control character in an attribute', element('a', { b: '\u001b' })],
    ['a name with a bracket', element('a><b')],
    ['an attribute name with a space', element('a', { 'b c': '1' })],
  ])('%s is not built', (_what, root) => expect(() => buildXml(root)).toThrow(XmlError));
});

describe('a domain', () => {
  const xml = `<domain type='kvm' id='3'>
  <name>vm-0192</name><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid><title>web &amp; more</title>
  <metadata><cv:vm xmlns:cv="urn:chronovirt" id="vm_0192"/></metadata>
  <memory unit='MiB'>512</memory><currentMemory unit='KiB'>262144</currentMemory><vcpu placement='static' current='1'>2</vcpu>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/pool/a.qcow2' index='1'/><target dev='vda' bus='virtio'/><alias name='virtio-disk0'/></disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
    <interface type='network'><mac address='52:54:0A:00:00:02'/><source network='cv-default' bridge='virbr5'/><target dev='vnet3'/><model type='virtio'/><alias name='net0'/></interface>
  </devices></domain>`;

  it('says what an agent asks', () => {
    const { root, metadata, ...domain } = readDomain(xml);
    expect(domain).toEqual({
      name: 'vm-0192',
      uuid: '6695eb01-f6a4-8304-79aa-97f2502e193f',
      id: 3,
      virtualisation: 'kvm',
      title: 'web & more',
      memoryKibMax: 524_288,
      memoryKib: 262_144,
      vcpusMax: 2,
      vcpus: 1,
      disks: [
        { device: 'disk', target: 'vda', bus: 'virtio', path: '/pool/a.qcow2', format: 'qcow2', readOnly: false, alias: 'virtio-disk0' },
        { device: 'cdrom', target: 'sda', bus: 'sata', path: undefined, format: undefined, readOnly: true, alias: undefined },
      ],
      interfaces: [{ kind: 'network', mac: '52:54:0a:00:00:02', network: 'cv-default', bridge: 'virbr5', model: 'virtio', device: 'vnet3', alias: 'net0' }],
    });
    expect(childInNamespace(metadata, 'urn:chronovirt')?.attributes['id']).toBe('vm_0192');
    expect(root.name).toBe('domain');
  });

  it('of another kind is refused', () => {
    expect(() => readDomain('<network/>')).toThrow(XmlError);
    expect(() => readDomain('<domain><memory unit="acres">1</memory></domain>')).toThrow(XmlError);
  });
});

describe('a network', () => {
  it('says what an agent asks', () => {
    const { root: _root, ...network } = readNetwork(`<network connections='1'><name>cv-default</name><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>
      <forward mode='nat'><nat><port start='1024' end='65535'/></nat></forward><bridge name='virbr5' stp='on' delay='0'/>
      <ip address='10.0.0.1' prefix='24'><dhcp><range start='10.0.0.2' end='10.0.0.254'/><host mac='52:54:0A:00:00:02' name='web' ip='10.0.0.2'/></dhcp></ip></network>`);
    expect(network).toEqual({
      name: 'cv-default',
      uuid: '6695eb01-f6a4-8304-79aa-97f2502e193f',
      bridge: 'virbr5',
      forward: 'nat',
      addresses: [
        { family: 'ipv4', address: '10.0.0.1', prefix: 24, netmask: undefined, dhcpRanges: [{ start: '10.0.0.2', end: '10.0.0.254' }], dhcpHosts: [{ mac: '52:54:0a:00:00:02', address: '10.0.0.2', name: 'web' }] },
      ],
      metadata: undefined,
    });
  });
});
