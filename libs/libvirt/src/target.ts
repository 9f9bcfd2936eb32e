/*
 * Where to connect: libvirt's URIs, as `virsh -c` takes them.
 *
 *   driver[+transport]://[user@][host][:port]/path[?parameter=value&…]
 *
 * Transports are unix (the default without a host), tls (the default with one), tcp, ssh and ext. The
 * daemon is told the URI without transport, host and the parameters that were for us. Unlike virsh,
 * `test:///default` means the test driver of a daemon: there is no driver in this process.
 *
 * A parameter that we cannot honour is refused rather than ignored: some of them are about security.
 */
import { existsSync } from 'node:fs';
import type { Duplex } from 'node:stream';

/** A daemon on this machine. */
export interface Target {
  /** Path of the daemon's unix socket. */
  readonly socket: string;
  /** The driver: `qemu:///system`, `qemu:///session`, `test:///default`. */
  readonly driver: string;
  /** Where credentials are looked up: see auth-conf.ts. */
  readonly authFile?: string;
}

export interface TcpTransport {
  readonly kind: 'tcp';
  readonly host: string;
  /** libvirt's is 16509. */
  readonly port: number;
}

/** PEM texts. */
export interface Certificates {
  readonly authority: string | Buffer;
  readonly certificate?: string | Buffer;
  readonly key?: string | Buffer;
  /** Certificates that the authority has taken back. */
  readonly revoked?: string | Buffer;
}

export interface TlsTransport {
  readonly kind: 'tls';
  readonly host: string;
  /** libvirt's is 16514. */
  readonly port: number;
  /**
   * A folder with cacert.pem, clientcert.pem, clientkey.pem and perhaps cacrl.pem, or their contents. Left out: libvirt's places,
   * ~/.pki/libvirt and then /etc/pki.
   */
  readonly certificates?: string | Certificates;
  /** `false` takes whoever answers for the server. Default true. */
  readonly verifyServer?: boolean;
}

/** Through the `ssh` program of this machine, whose own configuration and keys apply. */
export interface SshTransport {
  readonly kind: 'ssh';
  readonly host: string;
  readonly port?: number;
  readonly user?: string;
  /** The program here. Default `ssh`. It is given ssh's arguments. */
  readonly program?: string;
  /** `helper`: virt-ssh-helper there. `netcat`: nc -U. Default: the helper where there is one. */
  readonly proxy?: 'auto' | 'helper' | 'netcat';
  /** The netcat program there. */
  readonly netcat?: string;
  /** The daemon's unix socket there. The helper finds it by itself and cannot be told. */
  readonly socket?: string;
  readonly keyFile?: string;
  readonly knownHostsFile?: string;
  /** `false` takes whoever answers for the server. Default true. */
  readonly verifyServer?: boolean;
  /** Never asks for a password at the terminal. */
  readonly batch?: boolean;
  /** Which daemon there: the monolithic one, the driver's own, or the one that is found. */
  readonly mode?: DaemonMode;
}

/** A program of yours, whose input and output are the connection. */
export interface ProgramTransport {
  readonly kind: 'program';
  readonly program: string;
  readonly args?: readonly string[];
}

/** A stream of yours that leads to a daemon: a tunnel, or a fake daemon in this process. A new one for each connection. */
export interface StreamTransport {
  readonly kind: 'stream';
  readonly open: () => Duplex;
}

export type DaemonMode = 'auto' | 'legacy' | 'direct';

/** A daemon elsewhere. */
export interface RemoteTarget {
  readonly driver: string;
  /** Where credentials are looked up: see auth-conf.ts. */
  readonly authFile?: string;
  readonly transport: TcpTransport | TlsTransport | SshTransport | ProgramTransport | StreamTransport;
}

const portTcp = 16_509;
const portTls = 16_514;

const transports = ['unix', 'tcp', 'tls', 'ssh', 'ext'] as const;
type TransportName = (typeof transports)[number];

/** Parameters that are for us, and the transports that have them. */
const parametersOf: Readonly<Record<string, readonly TransportName[]>> = {
  name: transports,
  authfile: transports,
  mode: ['unix', 'ssh'],
  socket: ['unix', 'ssh'],
  command: ['ssh', 'ext'],
  netcat: ['ssh'],
  proxy: ['ssh'],
  keyfile: ['ssh'],
  known_hosts: ['ssh'],
  no_tty: ['ssh'],
  no_verify: ['ssh', 'tls'],
  pkipath: ['tls'],
  // What this asks for is checked in any case.
  no_sanity: transports,
};
/** Parameters of libvirt that we have nothing for: GnuTLS's own words, ways of ssh libraries, the way of authentication. */
const parametersRefused = ['tls_priority', 'sshauth', 'known_hosts_verify', 'auth'];

/** The modular daemon of each driver. */
const daemonOf: Readonly<Record<string, string>> = {
  bhyve: 'virtbhyved',
  ch: 'virtchd',
  interface: 'virtinterfaced',
  lxc: 'virtlxcd',
  network: 'virtnetworkd',
  nodedev: 'virtnodedevd',
  nwfilter: 'virtnwfilterd',
  qemu: 'virtqemud',
  secret: 'virtsecretd',
  storage: 'virtstoraged',
  vbox: 'virtvboxd',
  vz: 'virtvzd',
  xen: 'virtxend',
};

export interface TargetOptions {
  readonly readOnly?: boolean;
  /** Whether there is such a file. Default: on this machine. */
  readonly exists?: (path: string) => boolean;
}

/**
 * Throws TypeError for what is not a URI of libvirt, or has a parameter that cannot be honoured. Without
 * `socket`, a session's daemon is looked for where logins put it, /run/user/<uid>, and any other where
 * packages put it.
 */
export function targetOf(uri: string, options: TargetOptions = {}): Target | RemoteTarget {
  const refuse = (why: string, cause?: unknown) => new TypeError(`"${withoutPassword(uri)}" ${why}`, { cause });
  let url: URL;
  try {
    url = new URL(uri);
  } catch {
    // The cause would quote the whole of it, password included.
    throw refuse('is not a libvirt URI such as qemu:///system');
  }
  const [driver = '', transportGiven, ...more] = url.protocol.slice(0, -1).split('+');
  const transport = transportNamed(transportGiven ?? (url.host === '' ? 'unix' : 'tls'));
  if (more.length > 0 || transport === undefined) throw refuse(`has a transport that is none of ${transports.join(', ')}`);
  if (url.password !== '') throw refuse('has a password in it, which only the option `credentials` may carry');
  if (transport === 'unix' && url.host !== '') throw refuse('names a host, to which no unix socket leads');

  const query = new URLSearchParams(url.search);
  const ours = new Map<string, string>();
  for (const [name, value] of url.searchParams) {
    if (parametersRefused.includes(name)) throw refuse(`has the parameter ${name}, which this client cannot honour`);
    const where = parametersOf[name];
    if (where === undefined) continue;
    query.delete(name);
    // As libvirt does: a parameter of another transport means nothing.
    if (where.includes(transport)) ours.set(name, value);
  }
  const rest = query.toString();
  // "remote" leaves the choice to the daemon.
  const told = ours.get('name') ?? (driver === 'remote' ? '' : `${driver}://${url.pathname === '' ? '/' : url.pathname}${rest === '' ? '' : `?${rest}`}`);
  const oneOf = <const Choice extends string>(name: string, choices: readonly Choice[], otherwise: Choice): Choice => {
    const value = ours.get(name) ?? otherwise;
    const known = choices.find((choice) => choice === value);
    if (known === undefined) throw refuse(`has the ${name} ${value}, which is none of ${choices.join(', ')}`);
    return known;
  };
  const set = (name: string): boolean => {
    const value = ours.get(name) ?? '0';
    if (!/^-?\d+$/.test(value)) throw refuse(`has a ${name} that is no number`);
    return Number(value) !== 0;
  };
  const host = url.hostname === '' ? 'localhost' : decodeURIComponent(url.hostname.replace(/^\[(.*)\]$/, '$1'));
  const port = (otherwise: number) => (url.port === '' ? otherwise : Number(url.port));
  const mode = oneOf('mode', ['auto', 'legacy', 'direct'], 'auto');
  const authFile = ours.get('authfile');
  const common = { driver: told, ...(authFile === undefined ? {} : { authFile }) };

  switch (transport) {
    case 'unix':
      return { ...common, socket: ours.get('socket') ?? socketOf(driver, url.pathname, mode, options) };
    case 'tcp':
      return { ...common, transport: { kind: 'tcp', host, port: port(portTcp) } };
    case 'tls': {
      const folder = ours.get('pkipath');
      return { ...common, transport: { kind: 'tls', host, port: port(portTls), verifyServer: !set('no_verify'), ...(folder === undefined ? {} : { certificates: folder }) } };
    }
    case 'ssh': {
      const text = <Name extends string>(parameter: string, name: Name) => {
        const value = ours.get(parameter);
        // The name is the property's: Record would otherwise be of any string.
        return (value === undefined ? {} : { [name]: value }) as Partial<Record<Name, string>>;
      };
      return {
        ...common,
        transport: {
          kind: 'ssh',
          host,
          ...(url.port === '' ? {} : { port: Number(url.port) }),
          ...(url.username === '' ? {} : { user: decodeURIComponent(url.username) }),
          ...text('command', 'program'),
          ...text('netcat', 'netcat'),
          ...text('socket', 'socket'),
          ...text('keyfile', 'keyFile'),
          ...text('known_hosts', 'knownHostsFile'),
          proxy: ({ auto: 'auto', native: 'helper', netcat: 'netcat' } as const)[oneOf('proxy', ['auto', 'native', 'netcat'], 'auto')],
          verifyServer: !set('no_verify'),
          batch: set('no_tty'),
          mode,
        },
      };
    }
    case 'ext': {
      const program = ours.get('command');
      if (program === undefined) throw refuse('needs the parameter command, the program to talk through');
      return { ...common, transport: { kind: 'program', program } };
    }
  }
}

const transportNamed = (name: string): TransportName | undefined => transports.find((one) => one === name);

const withoutPassword = (uri: string): string => uri.replace(/(:\/\/[^/?#]*?):[^/?#]*@/, '$1:…@');

/** File names of the sockets that a driver's daemon may have, the likelier first. A session's daemon has none for reading alone. */
export function socketNames(driver: string, mode: DaemonMode, suffix: '' | '-ro'): readonly string[] {
  const own = daemonOf[driver];
  const legacy = mode === 'direct' ? [] : [`libvirt-sock${suffix}`];
  const direct = mode === 'legacy' || own === undefined ? [] : [`${own}-sock${suffix}`];
  return [...legacy, ...direct];
}

function socketOf(driver: string, path: string, mode: DaemonMode, { readOnly = false, exists = existsSync }: TargetOptions): string {
  const session = path === '/session';
  const folder = session ? `/run/user/${process.getuid?.() ?? 0}/libvirt` : '/run/libvirt';
  const candidates = socketNames(driver, mode, readOnly && !session ? '-ro' : '').map((name) => `${folder}/${name}`);
  const [first] = candidates;
  if (first === undefined) throw new TypeError(`the driver ${driver} has no daemon of its own, which mode=direct asks for`);
  return candidates.find((socket) => exists(socket)) ?? first;
}
