/*
 * The agent inside a pretend guest: as QEMU's own agent answers, and with what it refuses. It answers only
 * once the guest is up, and not while its domain stands still.
 */
import { agentUnresponsive, argumentUnsupported, internal, operationInvalid } from './refusal.ts';
import { chance } from './clock.ts';
import { leaseOf } from './networks.ts';
import type { FakeDomain, FakeNode } from './node.ts';
import { fileSizeOrUsual } from './storage.ts';

/** Throws when nobody in the guest answers. */
export function agentOf(domain: FakeDomain): void {
  if (domain.state !== 'running') throw operationInvalid('domain is not running');
  if (!domain.facts.agent) throw noAgent();
  if (!domain.agentConnected) throw agentUnresponsive('QEMU guest agent is not connected');
}
const noAgent = () => argumentUnsupported('QEMU guest agent is not configured');

export const hostnameOf = (node: FakeNode, domain: FakeDomain): string => node.behaviourOf(domain).hostname ?? domain.name;

/** Milliseconds, by the guest's own clock. */
export const guestTime = (node: FakeNode, domain: FakeDomain): number => node.clock.now() + domain.clockAheadMs;
export function setGuestTime(node: FakeNode, domain: FakeDomain, ms: number): void {
  domain.clockAheadMs = ms - node.clock.now();
  node.emitDomain('rtcChange', domain, { offsetSeconds: Math.round(domain.clockAheadMs / 1_000) });
}

export interface GuestInterface {
  readonly name: string;
  readonly mac: string;
  readonly addresses: readonly { readonly kind: 'ipv4' | 'ipv6'; readonly address: string; readonly prefix: number }[];
}

/** As the guest sees its network: the loopback first, then what the leases say. */
export function guestInterfaces(node: FakeNode, domain: FakeDomain): readonly GuestInterface[] {
  const own = domain.facts.interfaces.map((one, index) => {
    const lease = leaseOf(node, one.network, one.mac);
    return { name: `eth${index}`, mac: one.mac, addresses: lease === undefined ? [] : [{ kind: 'ipv4' as const, address: lease.address, prefix: lease.prefix }] };
  });
  return [{ name: 'lo', mac: '00:00:00:00:00:00', addresses: [{ kind: 'ipv4', address: '127.0.0.1', prefix: 8 }] }, ...own];
}

export interface GuestFilesystem {
  readonly name: string;
  readonly mountpoint: string;
  readonly type: string;
  readonly totalBytes: number;
  readonly usedBytes: number;
  readonly target: string;
}

export function guestFilesystems(node: FakeNode, domain: FakeDomain): readonly GuestFilesystem[] {
  return domain.facts.disks
    .filter((disk) => disk.device === 'disk' && disk.chain.length > 0)
    .map((disk, index) => {
      const totalBytes = Math.floor(fileSizeOrUsual(node, disk.chain[0]).capacity * 0.95);
      return { name: `${disk.target}1`, mountpoint: index === 0 ? '/' : `/mnt/${disk.target}`, type: 'ext4', totalBytes, usedBytes: Math.floor(totalBytes * (0.1 + 0.6 * chance('disk', node.seed, domain.uuid, disk.target))), target: disk.target };
    });
}

export function freeze(node: FakeNode, domain: FakeDomain, mountpoints: readonly string[]): number {
  agentOf(domain);
  if (domain.frozen) throw unable('guest-fsfreeze-freeze', 'Command guest-fsfreeze-freeze has been disabled: the agent is in frozen state');
  domain.frozen = true;
  const all = guestFilesystems(node, domain);
  return mountpoints.length === 0 ? all.length : all.filter((one) => mountpoints.includes(one.mountpoint)).length;
}
export function thaw(node: FakeNode, domain: FakeDomain): number {
  agentOf(domain);
  const frozen = domain.frozen ? guestFilesystems(node, domain).length : 0;
  domain.frozen = false;
  return frozen;
}

const os = { id: 'debian', name: 'Debian GNU/Linux', 'pretty-name': 'Debian GNU/Linux 12 (bookworm)', version: '12 (bookworm)', 'version-id': '12', 'kernel-release': '6.1.0-cloud-amd64', 'kernel-version': '#1 SMP PREEMPT_DYNAMIC Debian 6.1.0', machine: 'x86_64' } as const;

const unable = (command: string, why: string) => internal(`unable to execute QEMU agent command '${command}': ${why}`);
/** What runs programs or touches files in a guest that is not there. */
const disabled = ['guest-exec', 'guest-exec-status', 'guest-file-open', 'guest-file-close', 'guest-file-read', 'guest-file-write', 'guest-file-seek', 'guest-file-flush', 'guest-suspend-ram', 'guest-suspend-disk', 'guest-suspend-hybrid'];

type Arguments = Readonly<Record<string, unknown>>;
const commands: Readonly<Record<string, (node: FakeNode, domain: FakeDomain, args: Arguments) => unknown>> = {
  'guest-ping': () => ({}),
  'guest-sync': (_node, _domain, { id }) => id,
  'guest-info': () => ({ version: '7.2.0', supported_commands: [...Object.keys(commands), ...disabled].sort().map((name) => ({ name, enabled: !disabled.includes(name), 'success-response': true })) }),
  'guest-get-host-name': (node, domain) => ({ 'host-name': hostnameOf(node, domain) }),
  'guest-get-time': (node, domain) => guestTime(node, domain) * 1e6,
  'guest-set-time': (node, domain, { time }) => {
    if (typeof time === 'number') setGuestTime(node, domain, time / 1e6);
    return {};
  },
  'guest-get-timezone': () => ({ zone: 'UTC', offset: 0 }),
  'guest-get-osinfo': () => os,
  'guest-get-users': () => [],
  'guest-get-vcpus': (_node, domain) => Array.from({ length: domain.facts.vcpus }, (_, index) => ({ 'logical-id': index, online: true, 'can-offline': index > 0 })),
  'guest-network-get-interfaces': (node, domain) =>
    guestInterfaces(node, domain).map((one) => ({
      name: one.name,
      'hardware-address': one.mac,
      'ip-addresses': one.addresses.map((address) => ({ 'ip-address': address.address, 'ip-address-type': address.kind, prefix: address.prefix })),
    })),
  'guest-get-fsinfo': (node, domain) =>
    guestFilesystems(node, domain).map((one) => ({ name: one.name, mountpoint: one.mountpoint, type: one.type, 'total-bytes': one.totalBytes, 'used-bytes': one.usedBytes, disk: [] })),
  'guest-fsfreeze-status': (_node, domain) => (domain.frozen ? 'frozen' : 'thawed'),
  'guest-fsfreeze-freeze': (node, domain) => freeze(node, domain, []),
  'guest-fsfreeze-thaw': (node, domain) => thaw(node, domain),
  'guest-fstrim': () => ({ paths: [] }),
  'guest-set-user-password': (_node, _domain, { username }) => {
    if (username !== 'root') throw unable('guest-set-user-password', 'child process has failed to set user password');
    return {};
  },
};

/** A command as JSON, and its answer. */
export function agentCommand(node: FakeNode, domain: FakeDomain, command: string): string {
  agentOf(domain);
  let asked: { readonly execute?: unknown; readonly arguments?: Arguments };
  try {
    asked = JSON.parse(command) as typeof asked;
  } catch {
    throw internal(`cannot parse json ${command}: parse error`);
  }
  const name = asked?.execute;
  if (typeof name !== 'string') throw internal(`unable to execute QEMU agent command '${command}': Invalid parameter 'execute'`);
  if (disabled.includes(name)) throw unable(name, `Command ${name} has been disabled`);
  const run = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (run === undefined) throw unable(name, `The command ${name} has not been found`);
  if (domain.frozen && !['guest-ping', 'guest-info', 'guest-sync', 'guest-fsfreeze-status', 'guest-fsfreeze-thaw'].includes(name)) throw unable(name, `Command ${name} has been disabled: the agent is in frozen state`);
  return JSON.stringify({ return: run(node, domain, asked.arguments ?? {}) });
}

type Field = { readonly u32: number } | { readonly u64: bigint } | { readonly string: string } | { readonly i32: number };

/** As virDomainGetGuestInfo gives it: of the kinds that were asked for, or of all. */
export function guestInfo(node: FakeNode, domain: FakeDomain, kinds: readonly string[]): Record<string, Field> {
  agentOf(domain);
  const wanted = (kind: string) => kinds.length === 0 || kinds.includes(kind);
  const fields: Record<string, Field> = {};
  const text = (name: string, value: string) => (fields[name] = { string: value });
  if (wanted('users')) fields['user.count'] = { u32: 0 };
  if (wanted('os')) for (const [key, value] of Object.entries(os)) text(`os.${key}`, value);
  if (wanted('timezone')) {
    text('timezone.name', 'UTC');
    fields['timezone.offset'] = { i32: 0 };
  }
  if (wanted('hostname')) text('hostname', hostnameOf(node, domain));
  if (wanted('filesystem')) {
    const all = guestFilesystems(node, domain);
    fields['fs.count'] = { u32: all.length };
    all.forEach((one, index) => {
      text(`fs.${index}.name`, one.name);
      text(`fs.${index}.mountpoint`, one.mountpoint);
      text(`fs.${index}.fstype`, one.type);
      fields[`fs.${index}.total-bytes`] = { u64: BigInt(one.totalBytes) };
      fields[`fs.${index}.used-bytes`] = { u64: BigInt(one.usedBytes) };
      fields[`fs.${index}.disk.count`] = { u32: 1 };
      text(`fs.${index}.disk.0.alias`, one.target);
      text(`fs.${index}.disk.0.device`, `/dev/${one.name}`);
    });
  }
  if (wanted('interfaces')) {
    const all = guestInterfaces(node, domain);
    fields['if.count'] = { u32: all.length };
    all.forEach((one, index) => {
      text(`if.${index}.name`, one.name);
      text(`if.${index}.hwaddr`, one.mac);
      fields[`if.${index}.addr.count`] = { u32: one.addresses.length };
      one.addresses.forEach((address, number) => {
        text(`if.${index}.addr.${number}.type`, address.kind);
        text(`if.${index}.addr.${number}.addr`, address.address);
        fields[`if.${index}.addr.${number}.prefix`] = { u32: address.prefix };
      });
    });
  }
  return fields;
}
