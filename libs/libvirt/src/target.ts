/*
 * Where to connect: libvirt's URIs, as far as they mean a daemon on this machine.
 *
 * driver[+unix]:///path[?socket=/path/of/socket&…]. The daemon is told the URI without transport and
 * without the parameters that were for us. Unlike virsh, `test:///default` means the test driver of a
 * daemon: there is no driver in this process.
 */
import { existsSync } from 'node:fs';

/** Where the daemon listens and which of its drivers is meant. */
export interface Target {
  /** Path of the daemon's unix socket. */
  readonly socket: string;
  /** The driver: `qemu:///system`, `qemu:///session`, `test:///default`. */
  readonly driver: string;
}

/** Parameters of the transports of libvirt's URIs: the daemon is not told of them. */
const transportParameters = ['socket', 'mode', 'command', 'netcat', 'keyfile', 'known_hosts', 'sshauth', 'no_verify', 'no_tty', 'no_sanity', 'pkipath', 'tls_priority', 'proxy', 'auth', 'name'];

const systemSockets = (suffix: string): readonly string[] => [`/run/libvirt/libvirt-sock${suffix}`, `/run/libvirt/virtqemud-sock${suffix}`];

/**
 * Throws TypeError for what is not the URI of a local daemon. Without `socket`, a session's daemon is
 * looked for where logins put it, /run/user/<uid>, and any other where packages put it.
 */
export function targetOf(uri: string, readOnly = false): Target {
  let url: URL;
  try {
    url = new URL(uri);
  } catch (cause) {
    throw new TypeError(`"${uri}" is not a libvirt URI such as qemu:///system`, { cause });
  }
  const [driver, transport, ...more] = url.protocol.slice(0, -1).split('+');
  if (more.length > 0 || (transport !== undefined && transport !== 'unix') || url.host !== '') {
    throw new TypeError(`"${uri}" is not on this machine: only unix sockets are spoken to`);
  }
  const query = new URLSearchParams(url.search);
  const socketGiven = query.get('socket');
  const name = query.get('name');
  for (const parameter of transportParameters) query.delete(parameter);
  const rest = query.toString();
  const told = name ?? `${driver}://${url.pathname}${rest === '' ? '' : `?${rest}`}`;
  return { socket: socketGiven ?? socketOf(url.pathname, readOnly), driver: told };
}

function socketOf(path: string, readOnly: boolean): string {
  if (path === '/session') return `/run/user/${process.getuid?.() ?? 0}/libvirt/libvirt-sock`;
  const candidates = systemSockets(readOnly ? '-ro' : '');
  return candidates.find((socket) => existsSync(socket)) ?? (candidates[0] as string);
}
