/*
 * libvirt's own clients drive the fake: virsh, and the Python binding, on a unix socket. They decode what
 * it says with libvirt's own layouts, so a mistake that our client and our daemon share would be seen here.
 */
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FakeDaemon } from './daemon.ts';
import { populate } from './fleet.ts';
import { Migrations } from './migration.ts';

const run = promisify(execFile);
let directory: string;
let daemon: FakeDaemon;
let other: FakeDaemon;
let uri: string;
const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8', HOME: '/nonexistent' };

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cvfk-'));
  const migrations = new Migrations();
  const options = { migrations, jobMs: 50, guest: { bootMs: 0, shutdownMs: 20 } };
  daemon = new FakeDaemon({ ...options, hostname: 'one' });
  other = new FakeDaemon({ ...options, hostname: 'two' });
  await daemon.listen(join(directory, 'one'));
  await other.listen(join(directory, 'two'));
  populate(daemon.node, { domains: 2, running: true });
  populate(other.node, { domains: 0 });
  uri = `qemu+unix:///system?socket=${join(directory, 'one')}`;
});
afterAll(async () => {
  await Promise.all([daemon?.close(), other?.close()]);
  await rm(directory, { recursive: true, force: true });
});

const virsh = async (...args: readonly string[]): Promise<string> => (await run('virsh', ['-q', '-c', uri, ...args], { env: environment })).stdout.trim();
/** With what it says besides. */
const spoken = async (...args: readonly string[]): Promise<string> => (await run('virsh', ['-c', uri, ...args], { env: environment })).stdout.trim();
const file = async (name: string, text: string): Promise<string> => {
  const path = join(directory, name);
  await writeFile(path, text);
  return path;
};
const columns = (text: string): string[][] => text.split('\n').map((line) => line.trim().split(/\s{2,}/)).filter((line) => line[0] !== '');

const guest = (name: string) => `<domain type='kvm'><name>${name}</name><memory unit='MiB'>256</memory><currentMemory unit='MiB'>256</currentMemory><vcpu current='1'>4</vcpu><os><type arch='x86_64'>hvm</type></os><devices>
  <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/images/${name}.qcow2'/><target dev='vda' bus='virtio'/></disk>
  <interface type='network'><source network='default'/></interface><serial type='pty'/><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel><graphics type='vnc'/></devices></domain>`;

describe('virsh', () => {
  it('sees the node and what is on it', async () => {
    expect(await virsh('hostname')).toBe('one');
    expect(await virsh('nodeinfo')).toMatch(/CPU\(s\):\s+16/);
    expect(await virsh('capabilities')).toContain('<capabilities>');
    expect(await virsh('version', '--daemon')).toContain('Running against daemon: 9.0.0');
    expect(columns(await virsh('list', '--all')).map(([, name, state]) => [name, state])).toEqual([['vm-0', 'running'], ['vm-1', 'running']]);
    expect(columns(await virsh('net-list', '--all')).map(([name, state]) => [name, state])).toEqual([['default', 'active']]);
    expect(await virsh('net-dhcp-leases', 'default')).toContain('192.168.112.2/20');
    for (const command of [['pool-list', '--all'], ['secret-list'], ['nwfilter-list'], ['nodedev-list'], ['nodecpustats'], ['nodememstats'], ['freecell'], ['domcapabilities'], ['cpu-models', 'x86_64'], ['iface-list']]) await virsh(...command);
  });

  it('takes a domain through its life', async () => {
    await virsh('define', await file('life.xml', guest('life')));
    expect(await virsh('domstate', 'life', '--reason')).toBe('shut off (unknown)');
    await virsh('start', 'life');
    expect(await virsh('domstate', 'life', '--reason')).toBe('running (booted)');
    expect(await virsh('dumpxml', 'life')).toMatch(/<domain type="kvm" id="\d+">/);
    expect(await virsh('dominfo', 'life')).toMatch(/Persistent:\s+yes/);
    await virsh('suspend', 'life');
    expect(await virsh('domstate', 'life', '--reason')).toBe('paused (user)');
    await virsh('resume', 'life');
    await virsh('managedsave', 'life');
    expect(await virsh('domstate', 'life', '--reason')).toBe('shut off (saved)');
    await virsh('start', 'life');
    await virsh('autostart', 'life');
    await virsh('reset', 'life');
    await virsh('shutdown', 'life');
    await expect.poll(() => virsh('domstate', 'life', '--reason')).toBe('shut off (shutdown)');
    await virsh('undefine', 'life');
    await expect(virsh('domstate', 'life')).rejects.toThrow(/failed to get domain 'life'/);
  });

  it('plugs, changes, measures and limits', async () => {
    await virsh('define', await file('plug.xml', guest('plug')));
    await virsh('start', 'plug');
    await virsh('attach-disk', 'plug', '/images/more.qcow2', 'vdb', '--subdriver', 'qcow2', '--live', '--config');
    await virsh('attach-interface', 'plug', 'network', 'default', '--mac', '52:54:00:00:99:01', '--live');
    expect(columns(await virsh('domblklist', 'plug')).map(([target]) => target)).toEqual(['vda', 'vdb']);
    expect(await virsh('domiflist', 'plug')).toContain('52:54:00:00:99:01');
    expect(await virsh('domifaddr', 'plug')).toMatch(/192\.168\./);
    await virsh('detach-disk', 'plug', 'vdb', '--live', '--config');
    await virsh('detach-interface', 'plug', 'network', '--mac', '52:54:00:00:99:01', '--live');
    expect(columns(await virsh('domblklist', 'plug')).map(([target]) => target)).toEqual(['vda']);
    await virsh('setvcpus', 'plug', '3', '--live');
    expect(await virsh('vcpucount', 'plug', '--live', '--current')).toBe('3');
    await virsh('setmem', 'plug', '200M', '--live');
    expect(await virsh('dommemstat', 'plug')).toContain('actual 204800');
    await virsh('blkdeviotune', 'plug', 'vda', '--total-bytes-sec', '1048576', '--live');
    expect(await virsh('blkdeviotune', 'plug', 'vda')).toMatch(/total_bytes_sec\s*: 1048576/);
    expect(await virsh('domblkstat', 'plug', 'vda')).toContain('rd_req');
    expect(await virsh('domblkinfo', 'plug', 'vda')).toMatch(/Capacity:\s+10737418240/);
    expect(await virsh('domstats', 'plug')).toMatch(/block\.0\.name=vda/);
    expect(await virsh('vcpuinfo', 'plug')).toContain('running');
    expect(await spoken('metadata', 'plug', 'urn:x', '--key', 'k', '--set', '<a/>', '--live', '--config')).toContain('Metadata modified');
    expect(await virsh('metadata', 'plug', 'urn:x')).toBe('<a/>');
    await virsh('desc', 'plug', '--title', 'a title', '--live', '--config');
    expect(await virsh('desc', 'plug', '--title')).toBe('a title');
    await virsh('destroy', 'plug');
    await virsh('undefine', 'plug');
  });

  it('talks to the agent, and looks at the screen', async () => {
    await expect.poll(() => virsh('qemu-agent-command', 'vm-0', '{"execute":"guest-ping"}').catch(() => '')).toBe('{"return":{}}');
    await expect(virsh('qemu-agent-command', 'vm-0', '{"execute":"guest-exec","arguments":{"path":"/bin/sh"}}')).rejects.toThrow(/guest-exec has been disabled/);
    expect(await virsh('domfsinfo', 'vm-0')).toContain('ext4');
    expect(await spoken('domfsfreeze', 'vm-0')).toContain('Froze 1 filesystem');
    expect(await spoken('domfsthaw', 'vm-0')).toContain('Thawed 1 filesystem');
    expect(await virsh('guestinfo', 'vm-0', '--os')).toMatch(/os\.id\s+: debian/);
    expect(await virsh('domifaddr', 'vm-0', '--source', 'agent')).toContain('127.0.0.1/8');
    await virsh('set-user-password', 'vm-0', 'root', 'secret');
    await virsh('domtime', 'vm-0', '--time', '1900000000');
    expect(await virsh('domtime', 'vm-0')).toMatch(/^Time: 19000000\d\d$/);
    const picture = join(directory, 'screen.png');
    await virsh('screenshot', 'vm-0', picture);
    expect((await readFile(picture)).subarray(1, 4).toString('latin1')).toBe('PNG');
  });

  it('takes snapshots, commits and copies, marks and backs up', async () => {
    await virsh('snapshot-create-as', 'vm-0', 'one', '--disk-only', '--atomic');
    await virsh('snapshot-create-as', 'vm-0', 'two', '--disk-only', '--atomic');
    expect(columns(await virsh('snapshot-list', 'vm-0')).map(([name]) => name)).toEqual(['one', 'two']);
    expect((await virsh('snapshot-list', 'vm-0', '--tree')).replace(/\s+/g, ' ')).toContain('one | +- two');
    expect(await virsh('snapshot-current', 'vm-0', '--name')).toBe('two');
    expect(await virsh('domblklist', 'vm-0')).toContain('vm-0.two');
    expect(await spoken('blockcommit', 'vm-0', 'vda', '--active', '--pivot', '--wait')).toContain('Successfully pivoted');
    expect(await virsh('domblklist', 'vm-0')).toContain('vm-0.qcow2');
    expect(await spoken('blockjob', 'vm-0', 'vda')).toContain('No current block job');
    for (const name of ['two', 'one']) await virsh('snapshot-delete', 'vm-0', name, '--metadata');
    await virsh('checkpoint-create-as', 'vm-0', 'mark');
    expect(await virsh('checkpoint-list', 'vm-0')).toContain('mark');
    await virsh('backup-begin', 'vm-0');
    await expect.poll(() => virsh('domjobinfo', 'vm-0', '--completed')).toMatch(/Operation:\s+Backup/);
    await virsh('checkpoint-delete', 'vm-0', 'mark');
  });

  it('makes pools and volumes, and moves their bytes', async () => {
    await virsh('pool-define-as', 'files', 'dir', '--target', '/pools/files');
    await expect(virsh('pool-start', 'files')).rejects.toThrow(/cannot open directory/);
    await virsh('pool-start', 'files', '--build');
    await virsh('vol-create-as', 'files', 'disk', '1M');
    expect(columns(await virsh('vol-list', 'files'))).toEqual([['disk', '/pools/files/disk']]);
    const data = Buffer.concat([randomBytes(300_000), Buffer.alloc(448_576), randomBytes(300_000)]);
    await writeFile(join(directory, 'up'), data);
    await virsh('vol-upload', 'disk', join(directory, 'up'), '--pool', 'files');
    await virsh('vol-download', 'disk', join(directory, 'down'), '--pool', 'files');
    expect((await readFile(join(directory, 'down'))).equals(data)).toBe(true);
    await virsh('vol-upload', 'disk', join(directory, 'up'), '--pool', 'files', '--sparse');
    await virsh('vol-download', 'disk', join(directory, 'sparse'), '--pool', 'files', '--sparse');
    expect((await readFile(join(directory, 'sparse'))).equals(data)).toBe(true);
    await virsh('vol-clone', 'disk', 'copy', '--pool', 'files');
    await virsh('vol-resize', 'disk', '2M', '--pool', 'files');
    expect(await virsh('vol-info', 'disk', '--pool', 'files')).toMatch(/Capacity:\s+2\.00 MiB/);
    expect(await virsh('pool-info', 'files')).toMatch(/State:\s+running/);
    for (const volume of ['disk', 'copy']) await virsh('vol-delete', volume, '--pool', 'files');
    await virsh('pool-destroy', 'files');
    await virsh('pool-undefine', 'files');
  });

  it('migrates, in one call and in five', async () => {
    const there = `qemu+unix:///system?socket=${join(directory, 'two')}`;
    await virsh('migrate', 'vm-1', '--live', '--p2p', '--persistent', '--undefinesource', '--desturi', there);
    expect(columns(await virsh('list', '--all')).map(([, name]) => name)).toEqual(['vm-0']);
    const back = await run('virsh', ['-q', '-c', there, 'migrate', 'vm-1', '--live', '--persistent', '--undefinesource', '--desturi', uri], { env: environment });
    expect(back.stderr).toBe('');
    expect(await virsh('domstate', 'vm-1', '--reason')).toBe('running (migrated)');
    expect(other.node.domains.size).toBe(0);
  });

  it('hears events', async () => {
    const listening = spawn('virsh', ['-c', uri, 'event', '--all', '--loop', '--timeout', '60'], { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
    let heard = '';
    listening.stdout.setEncoding('utf8').on('data', (text: string) => (heard += text));
    try {
      // It registers one after the other; the last of them is in when something of the first is heard.
      await expect.poll(async () => {
        await virsh('suspend', 'vm-0');
        await virsh('resume', 'vm-0');
        return heard;
      }, { timeout: 20_000 }).toContain(`event 'lifecycle' for domain 'vm-0': Resumed Unpaused`);
      await virsh('define', await file('heard.xml', guest('heard')));
      await virsh('start', 'heard');
      await virsh('attach-interface', 'heard', 'network', 'default', '--live');
      await virsh('destroy', 'heard');
      await virsh('undefine', 'heard');
      await expect.poll(() => heard, { timeout: 20_000 }).toContain(`'heard': Undefined Removed`);
      const own = heard.split('\n').filter((line) => line.includes("'heard'")).map((line) => line.replace(/ for domain 'heard'/, '').trim());
      expect(own.filter((line) => line.includes("'lifecycle'")).map((line) => line.slice(line.indexOf(':') + 2))).toEqual(['Defined Added', 'Resumed Unpaused', 'Started Booted', 'Shutdown Finished after host request', 'Stopped Destroyed', 'Undefined Removed']);
      expect(own.some((line) => line.startsWith("event 'device-added': net1"))).toBe(true);
    } finally {
      listening.kill();
    }
  });
});

describe('the Python binding', () => {
  it('lists, starts, measures, hears and is refused', async () => {
    const program = `
import libvirt, json, sys, threading
libvirt.registerErrorHandler(lambda _context, _error: None, None)
libvirt.virEventRegisterDefaultImpl()
def loop():
    while True: libvirt.virEventRunDefaultImpl()
threading.Thread(target=loop, daemon=True).start()
connection = libvirt.open(sys.argv[1])
connection.setKeepAlive(1, 3)
heard, last = [], threading.Event()
def on(_connection, domain, event, detail, _opaque):
    heard.append([domain.name(), event, detail])
    if event == libvirt.VIR_DOMAIN_EVENT_STOPPED: last.set()
connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on, None)
domain = connection.defineXML(open(sys.argv[2]).read())
domain.create()
info = domain.info()
state = domain.state()
stats = connection.domainListGetStats([domain], 0, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)[0][1]
blocks = domain.blockStatsFlags('vda')
tune = domain.blockIoTune('vda')
memory = domain.memoryStats()
node = connection.getCPUStats(-1)
try: domain.create(); refused = None
except libvirt.libvirtError as error: refused = [error.get_error_code(), error.get_error_domain(), error.get_error_message()]
try: connection.lookupByName('nobody'); missing = None
except libvirt.libvirtError as error: missing = error.get_error_code()
domain.destroy()
last.wait(10)
told = list(heard)
domain.undefine()
print(json.dumps(dict(type=connection.getType(), uuid=domain.UUIDString(), info=info[:4], state=state, stats=sorted(stats)[:3], blocks=sorted(blocks)[:2], tune=tune['total_bytes_sec'], memory='actual' in memory, node='idle' in node, refused=refused, missing=missing, heard=told)))
connection.close()
`;
    const path = await file('program.py', program);
    const { stdout } = await run('/usr/bin/python3', [path, uri, await file('python.xml', guest('snake'))], { env: environment, timeout: 60_000 });
    expect(JSON.parse(stdout)).toMatchObject({
      type: 'QEMU', info: [1, 262_144, 262_144, 1], state: [1, 1], tune: 0, memory: true, node: true, missing: 42,
      refused: [55, 10, 'Requested operation is not valid: domain is already running'],
      heard: [['snake', 0, 0], ['snake', 4, 0], ['snake', 2, 0], ['snake', 6, 2], ['snake', 5, 1]],
    });
  });
});
