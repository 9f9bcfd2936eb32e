/*
 * A real node: libvirtd, QEMU, bridges and DHCP, in namespaces of the test's own, and the real agent beside
 * it. Nothing of it touches the machine's libvirtd or its network, and nothing outlives the test.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { idFrom } from '@chronovirt/contracts/ids';
import { startSystemLibvirtd } from '../libs/libvirt/src/testing-libvirtd.os.ts';
import { argumentsOf, processes, programOf } from '../tools/child.ts';
import { LIBVIRT_IN_FLIGHT, LIBVIRT_LIMITS } from '../tools/libvirt.ts';
import { guestImage, type GuestImage } from '../tools/guest-image.ts';
import type { NodeView } from './invariants.ts';
import type { Platform } from './platform.ts';
import type { Vm } from './rest.ts';

const run = promisify(execFile);

/** Between runs, because it is downloaded. */
const IMAGES = '/var/tmp/cv-agent-spec-images';
const CACHE = '/var/tmp/cv-agent-spec-cache';
export const GUEST_IMAGES = { images: IMAGES, cache: CACHE } as const;
export const GUEST_NETWORK = 'journey';

export interface QemuNode extends NodeView {
  /** The agent's name among the platform's parts. */
  readonly part: string;
  readonly image: GuestImage;
  readonly imageDir: string;
  readonly poolDir: string;
  /** Of the node's libvirtd. */
  readonly libvirtSocket: string;
  /** What `virsh` prints. */
  virsh(...words: readonly string[]): Promise<string>;
  /** What libvirt tells of its domains while the work is done, a line for each event, as `virsh event` prints them. `running`: a domain whose own events show that we hear. */
  toldWhile(running: string, work: () => Promise<unknown>): Promise<readonly string[]>;
  /** Runs a program in the node's network. */
  inNetwork(program: string, ...words: readonly string[]): Promise<string>;
  /** Runs a program where the node's libvirtd sees files. */
  inMounts(program: string, ...words: readonly string[]): Promise<string>;
  /** What gives guests their addresses is killed. */
  killDhcp(network: string): Promise<void>;
  /** Whether an address answers an ICMP echo, asked in the node's network. */
  pings(address: string): Promise<boolean>;
  domainOf(vm: Pick<Vm, 'id'>): Promise<string>;
  /** Process id of a VM's QEMU, in the node's own numbering. */
  qemuPid(vm: Pick<Vm, 'id'>): Promise<number>;
  /** Everything that the guest wrote on its serial console. */
  console(vm: Pick<Vm, 'id'>): string;
  /** How often the guest has booted from its disk, as it says itself. */
  boots(vm: Pick<Vm, 'id'>): number;
  /** What a program in the guest prints, by the guest agent. */
  inGuest(vm: Pick<Vm, 'id'>, path: string, ...words: readonly string[]): Promise<string>;
  /** Ports that something listens on in the node's network. */
  tcpPorts(): readonly number[];
  /** A network beyond the node, 198.51.100.0/24, with `outside` (.2) in it and the node as its gateway (.1). */
  connectOutside(): Promise<{ pings(address: string): Promise<boolean> }>;
  /** What lies in the folder, by TFTP at that address of the node, as soon as there is such an address; what was fetched stands in its file `log`. */
  serveTftp(folder: string, address: string): void;
  /** The machine loses its power and gets it back, its agent too. */
  powerCycle(): Promise<void>;
  stop(): Promise<void>;
}

/** Of guest-exec and guest-exec-status (QEMU guest agent protocol). */
interface GuestAnswer {
  readonly pid?: number;
  readonly exited?: boolean;
  readonly exitcode?: number;
  /** Base64. */
  readonly 'out-data'?: string;
}

/** A guest sees a new disk a moment after libvirt has plugged it in: until then its name would be that of a new file. */
const withItsDisks = (script: string): string => {
  const used = new Set([...script.matchAll(/\b[io]f=(\/dev\/vd[a-z])\b/g)].map(([, device = '']) => device));
  return [...used].map((device) => `n=0; until [ -b ${device} ] || [ $n -ge 300 ]; do n=$((n+1)); sleep 0.1; done; `).join('') + script;
};

/** `imageDir`: an image folder of its own instead of that with the guest image, which is registered as a file there. `another`: image and network are registered already. */
export async function addQemuNode(platform: Platform, name: string, { imageDir = IMAGES, backupDirs, another = false }: { readonly imageDir?: string; readonly backupDirs?: string; readonly another?: boolean } = {}): Promise<QemuNode> {
  const image = await guestImage(GUEST_IMAGES);
  const daemon = await startSystemLibvirtd(LIBVIRT_LIMITS);
  const helpers: ChildProcess[] = [];
  const stop = async (): Promise<void> => {
    for (const helper of helpers) helper.kill('SIGKILL');
    await daemon.stop();
  };
  try {
    const configuration = join(daemon.directory, 'libvirtd.conf');
    const pidOfDaemon = (): number => {
      const found = processes().find((one) => programOf(one)?.endsWith('/libvirtd') === true && argumentsOf(one).includes(configuration));
      if (found === undefined) throw new Error('the libvirtd that was started is not found');
      return found;
    };
    const networkNamespace = join(daemon.directory, 'net');
    const bootIdFile = join(daemon.directory, 'boot-id');
    const findDaemon = (): number => {
      const found = pidOfDaemon();
      rmSync(networkNamespace, { force: true });
      symlinkSync(`/proc/${String(found)}/ns/net`, networkNamespace);
      // Whatever the real machine's kernel says, this one has just been started.
      writeFileSync(bootIdFile, randomUUID());
      return found;
    };
    let pid = findDaemon();
    const poolDir = join(platform.dir, `${name}-pool`);
    mkdirSync(poolDir, { mode: 0o755 });
    const nodeId = await platform.addAgent({ name, hypervisor: 'qemu', libvirtSocket: daemon.socket, libvirtInFlight: LIBVIRT_IN_FLIGHT, networkNamespace, bootIdFile, imageDir, poolDir, runDir: join(daemon.directory, 'run'), ...(backupDirs === undefined ? {} : { backupDirs }) });
    if (imageDir === IMAGES && !another) await platform.rest.ok('POST', '/v1/images', { ...image });
    if (!another) await platform.rest.ok('POST', '/v1/networks', { name: GUEST_NETWORK, kind: 'nat', cidr: '10.98.7.0/24' });

    const virsh = async (...words: readonly string[]): Promise<string> => (await run('virsh', ['-q', '-c', `qemu+unix:///system?socket=${daemon.socket}`, ...words], { timeout: 30_000 })).stdout.trim();
    const toldWhile = async (running: string, work: () => Promise<unknown>): Promise<readonly string[]> => {
      const listener = spawn('virsh', ['-c', `qemu+unix:///system?socket=${daemon.socket}`, 'event', '--all', '--loop'], { stdio: ['ignore', 'pipe', 'inherit'] });
      let heard = '';
      listener.stdout.setEncoding('utf8').on('data', (text: string) => { heard += text; });
      const marks = (): number => heard.split(`'metadata-change' for domain '${running}'`).length;
      /** Events come in order: behind one of ours all before it are heard. */
      const mark = async (): Promise<void> => {
        const before = marks();
        await platform.rest.until('libvirt tells us', async () => {
          await virsh('desc', running, '--live', '--config', '--new-desc', '');
          return marks() > before;
        }, 30_000, 200);
      };
      try {
        await mark();
        heard = '';
        await work();
        await mark();
      } finally {
        listener.kill('SIGINT');
        await once(listener, 'exit');
      }
      return heard.split('\n').filter((line) => line !== '');
    };
    // The guest's own busybox: a machine need not have ping.
    const busybox = [...readdirSync(CACHE)].flatMap((folder) => ['bin/busybox', 'usr/bin/busybox'].map((path) => join(CACHE, folder, path))).find((path) => existsSync(path));
    if (busybox === undefined) throw new Error('the guest image was built without a busybox');
    const inNetworkOf = async (process: number, program: string, ...words: readonly string[]): Promise<string> => (await run('nsenter', [`--net=/proc/${String(process)}/ns/net`, program, ...words], { timeout: 30_000 })).stdout;
    const pingsFrom = (process: number, address: string): Promise<boolean> => inNetworkOf(process, busybox, 'ping', '-c', '1', '-W', '3', address).then(() => true, () => false);
    const domainOf = async ({ id }: Pick<Vm, 'id'>): Promise<string> => {
      const digits = id.slice(3);
      return virsh('domname', [digits.slice(0, 8), digits.slice(8, 12), digits.slice(12, 16), digits.slice(16, 20), digits.slice(20)].join('-'));
    };
    const consoleOf = ({ id }: Pick<Vm, 'id'>): string => {
      const file = join(platform.dir, name, 'console', `${id}.log`);
      return existsSync(file) ? readFileSync(file, 'utf8') : '';
    };

    return {
      nodeId, part: name, image, imageDir, poolDir, libvirtSocket: daemon.socket, virsh, toldWhile, domainOf, stop, console: consoleOf,
      powerCycle: async () => {
        await platform.kill9(name);
        await daemon.powerCycle();
        pid = findDaemon();
        await platform.start(name);
      },
      inNetwork: (program, ...words) => inNetworkOf(pid, program, ...words),
      inMounts: async (program, ...words) => (await run('nsenter', [`--mount=/proc/${String(pid)}/ns/mnt`, program, ...words], { timeout: 30_000 })).stdout,
      killDhcp: async (network) => {
        // Several nodes of tests may have a network of that name.
        const serves = processes().filter((one) => programOf(one)?.endsWith('/dnsmasq') === true && argumentsOf(one).some((word) => word.endsWith(`/${network}.conf`)) && readlinkSync(`/proc/${String(one)}/ns/net`) === readlinkSync(`/proc/${String(pid)}/ns/net`));
        if (serves.length === 0) throw new Error(`nothing serves ${network}`);
        for (const one of serves) {
          try {
            process.kill(one, 'SIGKILL');
          } catch (error) {
            // It is two processes, and one may go with the other.
            if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
          }
        }
      },
      pings: (address) => pingsFrom(pid, address),
      qemuPid: async (vm) => Number(readFileSync(`/proc/${String(pid)}/root/run/libvirt/qemu/${await domainOf(vm)}.pid`, 'utf8')),
      boots: (vm) => Math.max(0, ...[...consoleOf(vm).matchAll(/boots (\d+)/g)].map((match) => Number(match[1]))),
      inGuest: async (vm, path, ...words) => {
        const domain = await domainOf(vm);
        const ask = async (execute: string, args: object): Promise<GuestAnswer> =>
          (JSON.parse(await virsh('qemu-agent-command', '--timeout', '30', domain, JSON.stringify({ execute, arguments: args }))) as { return: GuestAnswer }).return;
        const { pid: started } = await ask('guest-exec', { path, arg: words.map(withItsDisks), 'capture-output': true });
        for (let tries = 0; tries < 600; tries++) {
          const status = await ask('guest-exec-status', { pid: started });
          if (status.exited === true) {
            const printed = Buffer.from(status['out-data'] ?? '', 'base64').toString('utf8');
            if (status.exitcode !== 0) throw new Error(`${path} ${words.join(' ')} in the guest ended with ${String(status.exitcode)}: ${printed}`);
            return printed;
          }
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
        throw new Error(`${path} in the guest does not end`);
      },
      tcpPorts: () => ['tcp', 'tcp6'].flatMap((table) => readFileSync(`/proc/${String(pid)}/net/${table}`, 'utf8').split('\n').slice(1).flatMap((line) => {
        const [, local, , state] = line.trim().split(/\s+/);
        return state === '0A' ? [parseInt(local?.split(':')[1] ?? '0', 16)] : []; // 0A: listening (proc(5))
      })),
      serveTftp: (folder, address) => {
        helpers.push(spawn('nsenter', [`--net=/proc/${String(pid)}/ns/net`, 'dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null', '--pid-file', '--port=0', '--user=root', '--bind-dynamic', `--listen-address=${address}`, '--enable-tftp', `--tftp-root=${folder}`, `--log-facility=${join(folder, 'log')}`], { stdio: 'ignore' }));
      },
      connectOutside: async () => {
        const outside = spawn('unshare', ['--net', 'sleep', '600'], { stdio: 'ignore' });
        helpers.push(outside);
        if (outside.pid === undefined) throw new Error('unshare could not be run');
        const own = String(outside.pid);
        // It has a network of its own once its namespace is not ours any more.
        await platform.rest.until('the outside is a network of its own', async () => (await run('readlink', [`/proc/${own}/ns/net`])).stdout !== (await run('readlink', ['/proc/self/ns/net'])).stdout, 5_000);
        await inNetworkOf(pid, 'ip', 'link', 'add', 'cv-out', 'type', 'veth', 'peer', 'name', 'cv-in', 'netns', own);
        await inNetworkOf(pid, 'ip', 'addr', 'add', '198.51.100.1/24', 'dev', 'cv-out');
        await inNetworkOf(pid, 'ip', 'link', 'set', 'cv-out', 'up');
        await inNetworkOf(outside.pid, 'ip', 'addr', 'add', '198.51.100.2/24', 'dev', 'cv-in');
        await inNetworkOf(outside.pid, 'ip', 'link', 'set', 'cv-in', 'up');
        await inNetworkOf(outside.pid, 'ip', 'route', 'add', 'default', 'via', '198.51.100.1');
        const from = outside.pid;
        return { pings: (address) => pingsFrom(from, address) };
      },
      domains: async () => {
        const listed = (await virsh('list', '--all', '--uuid', '--name')).split('\n').map((line) => line.trim().split(/\s+/)).filter(([, domain]) => domain?.startsWith('cv-') === true);
        return Promise.all(listed.map(async ([uuid = '']) => ({ vmId: idFrom('vm', uuid), running: (await virsh('domstate', uuid)) === 'running' })));
      },
      disks: () => Promise.resolve(readdirSync(poolDir).flatMap((file) => /^(volume_[0-9a-f]{32})\.(?:qcow2|raw)$/.exec(file)?.[1] ?? [])),
    };
  } catch (error) {
    await stop();
    throw error;
  }
}
