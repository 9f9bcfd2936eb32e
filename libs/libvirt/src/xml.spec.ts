import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readCapabilities, readDomainCapabilities } from './capabilities-xml.ts';
import { readDomain } from './domain-xml.ts';
import { readNetwork } from './network-xml.ts';
import { attributeOf, buildXml, bytesOf, childInNamespace, childOf, childrenOf, element, parseXml, textOf, XmlError } from './xml.ts';
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

describe('capabilities', () => {
  it('say what a node can do', () => {
    const { root: _root, ...said } = readCapabilities(`<capabilities><host><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>
      <cpu><arch>x86_64</arch><model>EPYC</model><vendor>AMD</vendor></cpu>
      <migration_features><live/><uri_transports><uri_transport>tcp</uri_transport><uri_transport>rdma</uri_transport></uri_transports></migration_features>
      <topology><cells num='2'><cell id='0'><memory unit='KiB'>2048</memory><cpus num='2'><cpu id='0'/><cpu id='2'/></cpus></cell><cell id='1'><cpus num='1'><cpu id='1'/></cpus></cell></cells></topology></host>
      <guest><os_type>hvm</os_type><arch name='x86_64'><wordsize>64</wordsize><emulator>/usr/bin/qemu</emulator><machine canonical='pc-q35-7.2'>q35</machine><domain type='qemu'/><domain type='kvm'/></arch></guest></capabilities>`);
    expect(said).toEqual({
      host: {
        uuid: '6695eb01-f6a4-8304-79aa-97f2502e193f',
        architecture: 'x86_64',
        cpuModel: 'EPYC',
        cpuVendor: 'AMD',
        cells: [
          { id: 0, memoryKib: 2_048, cpus: [0, 2] },
          { id: 1, memoryKib: 0, cpus: [1] },
        ],
        migrationTransports: ['tcp', 'rdma'],
      },
      guests: [{ type: 'hvm', architecture: 'x86_64', emulator: '/usr/bin/qemu', machines: ['q35'], virtualisations: ['qemu', 'kvm'] }],
    });
  });

  it('say what a guest can have', () => {
    const { root: _root, ...said } = readDomainCapabilities(`<domainCapabilities><path>/usr/bin/qemu</path><domain>kvm</domain><machine>pc-q35-7.2</machine><arch>x86_64</arch><vcpu max='288'/>
      <os supported='yes'><enum name='firmware'><value>efi</value></enum><loader supported='yes'><enum name='secure'><value>yes</value><value>no</value></enum></loader></os>
      <cpu><mode name='host-passthrough' supported='no'/><mode name='custom' supported='yes'><model usable='yes'>qemu64</model><model usable='no'>Nehalem</model></mode></cpu>
      <devices><disk supported='yes'><enum name='bus'><value>virtio</value><value>sata</value></enum></disk><tpm supported='no'/></devices><features><hyperv supported='yes'><enum name='features'><value>relaxed</value></enum></hyperv></features></domainCapabilities>`);
    expect(said).toEqual({
      emulator: '/usr/bin/qemu',
      virtualisation: 'kvm',
      machine: 'pc-q35-7.2',
      architecture: 'x86_64',
      vcpusMax: 288,
      firmware: ['efi'],
      secureBoot: true,
      hyperv: ['relaxed'],
      cpuModes: [
        { name: 'host-passthrough', supported: false },
        { name: 'custom', supported: true },
      ],
      cpuModels: ['qemu64'],
      devices: { disk: { bus: ['virtio', 'sata'] } },
    });
  });
});

describe('a size', () => {
  it.each([
    ['<s>5</s>', 5],
    ["<s unit='KiB'>5</s>", 5_120],
    ["<s unit='G'>2</s>", 2 ** 31],
    ["<s unit='MB'>3</s>", 3_000_000],
  ])('%s is %i bytes', (xml, bytes) => expect(bytesOf(parseXml(xml))).toBe(bytes));
  it('in another unit is refused', () => expect(() => bytesOf(parseXml("<s unit='acres'>1</s>"))).toThrow(XmlError));
});
