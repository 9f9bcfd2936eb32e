/*
 * The table against libvirt's own client. A proxy stands between virsh and a real libvirtd and reads
 * with our table every call that virsh makes and every answer that it gets. A layout that is too short,
 * too long or of other kinds would not end where the packet ends; the daemon alone would not tell, since
 * it ignores what comes after the arguments.
 */
import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { createConnection, createServer } from 'node:net';
import type { Server } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventKindOf } from './events.ts';
import { remoteError } from './layouts.ts';
import { procedures, programs, sessionProcedures } from './procedures.ts';
import type { Procedure } from './procedures.ts';
import { inSystem, startLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd } from './testing-libvirtd.os.ts';
import { Reader, Writer } from './xdr.ts';

const table: Readonly<Record<string, Procedure>> = { ...procedures, ...sessionProcedures };
const byNumber = new Map(Object.entries(table).map(([name, procedure]) => [`${programs[procedure.program]} ${procedure.number}`, { name, procedure }]));
const messageTypes = { call: 0, reply: 1, message: 2 } as const;

const called = new Map<string, unknown[]>();
const answered = new Set<string>();
const wrong: string[] = [];

/** Cuts what comes into packets, without their length. */
function packets(onPacket: (packet: Buffer) => void): (data: Buffer) => void {
  let held: Buffer = Buffer.alloc(0);
  return (data) => {
    held = Buffer.concat([held, data]);
    while (held.length >= 4 && held.length >= held.readUInt32BE(0)) {
      const length = held.readUInt32BE(0);
      onPacket(held.subarray(4, length));
      held = held.subarray(length);
    }
  };
}

function look(packet: Buffer): void {
  const program = packet.readUInt32BE(0);
  const number = packet.readInt32BE(8);
  const type = packet.readInt32BE(12);
  const failed = packet.readInt32BE(20) === 1;
  if (program === programs.keepalive) return;
  const reader = new Reader(packet, 24);
  const entry = byNumber.get(`${program} ${number}`);
  const name = entry?.name ?? `${program} ${number}`;
  try {
    if (type === messageTypes.message) {
      const kind = eventKindOf(program === programs.qemu ? 'qemu' : 'remote', number);
      if (kind === undefined) return;
      kind.message.read(reader);
    } else if (type === messageTypes.call) {
      if (entry === undefined) {
        wrong.push(`virsh calls ${name}, which the table does not have`);
        return;
      }
      const args: unknown = entry.procedure.args.read(reader);
      called.set(name, [...(called.get(name) ?? []), args]);
      // Who plays the daemon reads what was written, and must be able to write it again.
      const writer = new Writer(33_554_432);
      entry.procedure.args.write(writer, args);
    } else if (type === messageTypes.reply) {
      if (failed) remoteError.read(reader);
      else if (entry !== undefined) {
        entry.procedure.result.read(reader);
        answered.add(name);
      }
    } else return;
    reader.end();
  } catch (error) {
    wrong.push(`${name} (${type === messageTypes.call ? 'call' : 'answer'}): ${String(error)}`);
  }
}

/** Of another libvirt, and virsh of that: see the README. */
const system = process.env['CV_LIBVIRT_SYSTEM'];

let daemon: OwnLibvirtd;
let proxy: Server;
let path: string;
let folder: string;

beforeAll(async () => {
  daemon = await startLibvirtd({}, system === undefined ? {} : { system });
  folder = join(daemon.directory, 'run');
  path = join(folder, 'proxy');
  proxy = createServer((client) => {
    const server = createConnection({ path: daemon.socket });
    client.on('error', () => server.destroy());
    server.on('error', () => client.destroy());
    client.on('data', packets(look)).pipe(server);
    server.on('data', packets(look)).pipe(client);
  });
  await new Promise<void>((resolve) => proxy.listen({ path, writableAll: true }, resolve));
}, 60_000);

afterAll(async () => {
  await new Promise((resolve) => (proxy === undefined ? resolve(undefined) : proxy.close(resolve)));
  await daemon?.stop();
});

/** Each line on its own: one that fails does not stop the next. */
async function virsh(uri: string, lines: readonly string[]): Promise<string> {
  const words = ['virsh', '-q', '-c', `${uri}?socket=${path}`];
  const [program = '', ...args] = system === undefined ? words : inSystem(system, words);
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8', HOME: folder } });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output += text));
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.stdin.end(`${lines.join('\n')}\nquit\n`);
  await ended;
  return output;
}

const file = async (name: string, xml: string): Promise<string> => {
  const written = join(folder, name);
  await writeFile(written, xml);
  return written;
};

describe('what virsh says to the test driver and to QEMU', () => {
  it('is what the table says, to the last byte', async () => {
    await mkdir(join(folder, 'files'), { recursive: true });
    const guest = (type: string) =>
      `<domain type='${type}'><name>g</name><memory unit='MiB'>64</memory><vcpu current='1'>2</vcpu><iothreads>1</iothreads><os><type>hvm</type></os><devices>
       <disk type='file' device='disk'><driver type='qcow2'/><source file='/g.img'/><target dev='vda' bus='virtio'/></disk>
       <interface type='user'><mac address='52:54:00:00:00:01'/></interface></devices></domain>`;
    const testGuest = await file('test.xml', guest('test'));
    const qemuGuest = await file('qemu.xml', guest('qemu').replace('<devices>', '<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>'));
    const device = await file('device.xml', "<disk type='file'><source file='/h.img'/><target dev='vdb' bus='virtio'/></disk>");
    const cpu = await file('cpu.xml', '<cpu><arch>x86_64</arch><model>qemu64</model></cpu>');
    const network = await file('network.xml', "<network><name>n</name><bridge name='virbr9'/></network>");
    const pool = await file('pool.xml', `<pool type='dir'><name>p</name><target><path>${join(folder, 'files')}</path></target></pool>`);
    const volume = await file('volume.xml', '<volume><name>v</name><capacity>65536</capacity></volume>');
    const clone = await file('clone.xml', '<volume><name>w</name><capacity>65536</capacity></volume>');
    const secret = await file('secret.xml', "<secret><uuid>7f0c0de0-0000-4000-8000-0000000000c1</uuid><usage type='ceph'><name>s</name></usage></secret>");
    const nic = await file('nic.xml', "<interface type='ethernet' name='eth9'><start mode='none'/><protocol family='ipv4'><dhcp/></protocol></interface>");
    const snapshot = await file('snapshot.xml', '<domainsnapshot><name>s2</name></domainsnapshot>');
    const backup = await file('backup.xml', "<domainbackup mode='push'><disks><disk name='vda' backup='yes' type='file'><target file='/b'/></disk></disks></domainbackup>");
    const checkpoint = await file('checkpoint.xml', '<domaincheckpoint><name>c2</name></domaincheckpoint>');
    const data = await file('data', 'x'.repeat(4_096));

    const node = [
      'version', 'hostname', 'uri', 'sysinfo', 'nodeinfo', 'nodecpumap', 'nodecpustats', 'nodememstats', 'nodesuspend disk 60', 'node-memory-tune', 'freecell --all', 'freepages 0 --pagesize 4',
      'allocpages 4 1 0', 'maxvcpus', 'capabilities', 'domcapabilities --virttype qemu', 'cpu-models x86_64', `cpu-compare ${cpu}`, `cpu-baseline ${cpu}`, `hypervisor-cpu-compare ${cpu}`,
      `hypervisor-cpu-baseline ${cpu}`, 'nodesevinfo', `domxml-to-native qemu-argv ${qemuGuest}`, `domxml-from-native qemu-argv ${data}`, 'nodedev-list', 'nodedev-list --cap system', 'nodedev-dumpxml computer', 'nodedev-info computer',
      'nodedev-autostart computer', 'nodedev-detach computer', 'nodedev-reattach computer', 'nodedev-reset computer', `nodedev-create ${device}`, `nodedev-define ${device}`, 'nodedev-start computer', 'nodedev-undefine computer',
      'nodedev-destroy computer', 'iface-list --all', 'iface-mac eth1', 'iface-name aa:bb:cc:dd:ee:ff', 'iface-dumpxml eth1', 'iface-begin', `iface-define ${nic}`, 'iface-start eth9', 'iface-destroy eth9', 'iface-undefine eth9', 'iface-commit', 'iface-begin', 'iface-rollback',
    ];
    const stored = [
      'pool-list --all --details', `pool-define ${pool}`, 'pool-build p', 'pool-start p', 'pool-autostart p', 'pool-info p', 'pool-dumpxml p', 'pool-name p', 'pool-uuid p', 'pool-refresh p', 'find-storage-pool-sources dir', 'pool-capabilities',
      `vol-create p ${volume}`, `vol-create-from p ${clone} v --inputpool p`, 'vol-list p --details', 'vol-info v p', 'vol-info v p --physical', 'vol-dumpxml v p', 'vol-path v p', 'vol-key v p', 'vol-name v --pool p', 'vol-pool v --pool p', 'vol-resize v 128K --pool p',
      'vol-wipe v --pool p', 'vol-wipe v --pool p --algorithm random', `vol-upload v ${data} --pool p`, `vol-download v ${join(folder, 'out')} --pool p`, 'vol-delete w p', 'vol-delete v p', 'pool-destroy p', 'pool-delete p', 'pool-undefine p', `pool-create ${pool}`, 'pool-destroy p',
      `secret-define ${secret}`, 'secret-list', 'secret-list --ephemeral', 'secret-set-value 7f0c0de0-0000-4000-8000-0000000000c1 --base64 eA==', 'secret-get-value 7f0c0de0-0000-4000-8000-0000000000c1', 'secret-dumpxml 7f0c0de0-0000-4000-8000-0000000000c1', 'secret-undefine 7f0c0de0-0000-4000-8000-0000000000c1',
    ];
    const networks = [
      'net-list --all', `net-define ${network}`, 'net-start n', 'net-info n', 'net-dumpxml n', 'net-autostart n', 'net-uuid n', 'net-dhcp-leases n', "net-update n add-last ip-dhcp-host \"<host mac='52:54:00:00:00:09' ip='10.0.0.9'/>\" --live", 'net-port-list n', `net-port-create n ${device}`,
      'net-destroy n', 'net-undefine n', `net-create ${network}`, 'net-destroy n', `net-define ${network} --validate`, 'net-undefine n', `net-create ${network} --validate`, 'net-destroy n', `nwfilter-define ${device} --validate`, 'nwfilter-list', 'nwfilter-dumpxml f', `nwfilter-define ${device}`, 'nwfilter-binding-list', 'nwfilter-binding-dumpxml vnet0', `nwfilter-binding-create ${device}`,
    ];
    const life = (xml: string) => [
      `define ${xml}`, 'start g', 'list --all --title', 'domid g', 'domuuid g', 'domstate g --reason', 'dominfo g', 'domcontrol g', 'dumpxml g --inactive', 'domname g', 'domhostname g', 'autostart g', 'dommemstat g', 'dommemstat g --period 2 --live', 'domstats', 'domstats g --state --nowait',
      'domblklist g --details', 'domblkinfo g vda', 'domblkstat g vda', 'domblkstat g', 'domblkerror g', 'domiflist g', 'domifstat g 52:54:00:00:00:01', 'domifaddr g', 'domif-setlink g 52:54:00:00:00:01 down', 'domif-getlink g 52:54:00:00:00:01', 'domiftune g 52:54:00:00:00:01', 'domiftune g 52:54:00:00:00:01 --inbound 100',
      'cpu-stats g', 'cpu-stats g --start 0 --count 1', 'vcpuinfo g', 'vcpucount g', 'vcpupin g', 'vcpupin g 0 0', 'emulatorpin g', 'emulatorpin g 0', 'iothreadinfo g', 'iothreadadd g 5', 'iothreadpin g 5 0', 'iothreadset g 5 --poll-max-ns 1000', 'iothreaddel g 5', 'setvcpus g 2 --live', 'setvcpu g 1 --enable', 'guestvcpus g', 'guestvcpus g --cpulist 0 --enable',
      'setmem g 32M', 'setmaxmem g 64M', 'memtune g', 'memtune g --hard-limit 100000', 'blkiotune g', 'blkiotune g --weight 500', 'numatune g', 'numatune g --nodeset 0', 'schedinfo g', 'schedinfo g --set weight=60', 'blkdeviotune g vda', 'blkdeviotune g vda --total-iops-sec 100 --total-iops-sec-max 200', 'blkdeviotune g vda --group-name x', 'perf g', 'perf g --enable cpu_cycles',
      'metadata g urn:x', 'metadata g urn:x --key x --set "<a/>"', 'desc g --title new', 'suspend g', 'resume g', 'reboot g --mode acpi', 'reset g', 'inject-nmi g', 'send-key g KEY_A', 'send-process-signal g 1 SIGTERM', 'set-lifecycle-action g crash preserve', 'dompmsuspend g mem', 'dompmwakeup g',
      `attach-device g ${device}`, `update-device g ${device}`, `detach-device g ${device}`, 'detach-device-alias g net0', 'attach-disk g /x vdc', 'blockcommit g vda --active', 'blockpull g vda', 'blockjob g vda --info', 'blockjob g vda --abort', 'blockjob g vda 5', `blockcopy g vda --xml ${device}`, 'blockcopy g vda --dest /copy', 'blockresize g vda 1M', 'domblkthreshold g vda 1M',
      'domjobinfo g', 'domjobinfo g --completed', 'domjobabort g', 'domdirtyrate-calc g', 'domfsinfo g', 'domfsfreeze g', 'domfsthaw g', 'domfstrim g', 'domtime g', 'domtime g --time 1', 'set-user-password g root x', 'guestinfo g', 'get-user-sshkeys g root', `set-user-sshkeys g root --file ${data}`, 'guest-agent-timeout g --timeout 1', 'qemu-agent-command g {}', 'qemu-monitor-command g {}', 'qemu-attach 1',
      'snapshot-create-as g s1', `snapshot-create g ${snapshot}`, 'snapshot-list g --tree', 'snapshot-list g', 'snapshot-current g', 'snapshot-info g s1', 'snapshot-parent g s2', 'snapshot-dumpxml g s1', 'snapshot-list g --from s1', 'snapshot-revert g s1', 'snapshot-delete g s1 --children', 'snapshot-delete g s2',
      'checkpoint-create-as g c1', `checkpoint-create g ${checkpoint}`, 'checkpoint-list g', 'checkpoint-info g c1', 'checkpoint-parent g c2', 'checkpoint-dumpxml g c1', 'checkpoint-list g --from c1', 'checkpoint-delete g c1', 'checkpoint-delete g c2', `backup-begin g ${backup} ${checkpoint}`, 'backup-dumpxml g',
      `screenshot g ${join(folder, 'screen')}`, `dump g ${join(folder, 'core')}`, `dump g ${join(folder, 'core')} --memory-only --format elf`, 'managedsave g', 'managedsave-dumpxml g', 'managedsave-remove g', 'start g', `save g ${join(folder, 'save')}`, `save-image-dumpxml ${join(folder, 'save')}`, `save-image-define ${join(folder, 'save')} ${xml}`, `restore ${join(folder, 'save')}`,
      'migrate-getspeed g', 'migrate-setspeed g 10', 'migrate-getmaxdowntime g', 'migrate-setmaxdowntime g 100', 'migrate-compcache g', 'migrate-compcache g --size 65536', 'migrate-postcopy g', 'migrate g --p2p qemu:///nowhere', 'migrate g qemu:///session', 'domlaunchsecinfo g', 'domsetlaunchsecstate g --secrethdr /x --secret /x',
      `define ${xml} --validate`, 'shutdown g --mode acpi', 'start g --paused', 'destroy g --graceful', 'start g --paused', `dump g ${join(folder, 'core')} --memory-only --format kdump-zlib`, `save g ${join(folder, 'save')} --paused`, `restore ${join(folder, 'save')} --running`, `attach-device g ${device} --config`, `detach-device g ${device} --config`,
      'schedinfo g --live --set weight=60', 'vcpupin g 0 0 --live', 'domjobabort g --postcopy', 'vcpucount g --maximum', 'nodedev-detach computer --driver vfio', 'shutdown g', 'destroy g', 'domrename g h', 'undefine h --managed-save', 'undefine g', `create ${xml}`, 'destroy g',
    ];
    // What the virsh of libvirt 9.0.0 does not know.
    const newer = [
      `net-define ${network}`, 'net-desc n --title --config LAN', 'net-desc n', 'net-metadata n urn:x --key x --set "<a/>"', 'net-metadata n urn:x', 'net-undefine n', `nodedev-update computer ${device}`,
      'nodedev-dumpxml computer --inactive', `define ${testGuest}`, `define ${qemuGuest}`, 'autostart g --once', 'dominfo g', 'domthrottlegroupset g slow --total-bytes-sec 1000000 --config',
      'domthrottlegroupdel g slow --config', 'domdisplay-reload g --type 1', 'domifannounce g 52:54:00:00:00:01 --initial 100', 'setvcpus g 1 --async --live', 'blockresize g vda --extend 1G', 'undefine g',
    ];
    const newerCalls: readonly (keyof typeof procedures)[] = ['networkSetMetadata', 'networkGetMetadata', 'nodeDeviceUpdate', 'domainGetAutostartOnce', 'domainSetAutostartOnce', 'domainSetThrottleGroup', 'domainDelThrottleGroup', 'domainGraphicsReload', 'domainAnnounceInterface'];
    const onTest = await virsh('test+unix:///default', [...node, ...stored, ...networks, ...life(testGuest)]);
    expect(onTest).toContain('Domain');
    // Here the guest is only defined: its image does not exist.
    await virsh('qemu+unix:///session', [...node.slice(0, 30), ...stored, ...networks, ...life(qemuGuest)]);
    await virsh('qemu+unix:///session', [
      'event --all --timeout 1', 'event --event lifecycle --timeout 1', 'net-event --event lifecycle --timeout 1', 'pool-event --event lifecycle --timeout 1', 'nodedev-event --event lifecycle --timeout 1', 'secret-event --event lifecycle --timeout 1', 'qemu-monitor-event --timeout 1',
    ]);

    if (system !== undefined) for (const uri of ['test+unix:///default', 'qemu+unix:///session']) await virsh(uri, newer);

    expect(wrong).toEqual([]);
    if (system !== undefined) expect([...called.keys()]).toEqual(expect.arrayContaining([...newerCalls]));
    // As many as virsh can be made to call; each of them with what it was told to say.
    expect(called.size).toBeGreaterThan(280);
    expect(answered.size).toBeGreaterThan(190);
    expect(called.get('domainSetMemoryFlags') ?? called.get('domainSetMemory')).toContainEqual(expect.objectContaining({ memoryKib: 32_768 }));
    expect(called.get('domainSetVcpusFlags')).toContainEqual(expect.objectContaining({ vcpus: 2, flags: ['live'] }));
    expect(called.get('domainSetBlockIoTune')).toContainEqual(expect.objectContaining({ disk: 'vda', parameters: { total_iops_sec: 100, total_iops_sec_max: 200 } }));
    expect(called.get('domainMigrateSetMaxDowntime')).toContainEqual(expect.objectContaining({ downtimeMs: 100 }));
    expect(called.get('storageVolResize')).toContainEqual(expect.objectContaining({ capacityBytes: 131_072 }));
    expect(called.get('domainBlockCommit')).toContainEqual(expect.objectContaining({ disk: 'vda', flags: ['active'] }));
    expect(called.get('domainSendKey')).toContainEqual(expect.objectContaining({ keys: [30], codeSet: 'linux' }));
    expect(called.get('domainPinIothread')).toContainEqual(expect.objectContaining({ iothread: 5, cpus: [0] }));
  });
});
