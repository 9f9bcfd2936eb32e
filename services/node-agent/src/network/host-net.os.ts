/* The network of the machine on which libvirtd runs: its sockets, its packet filter, the ends of its guests' interfaces. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);
const RUN_MS = 10_000;
const OUTPUT_BYTES_MAX = 32 * 2 ** 20;

export interface HostNet {
  /** Text of /proc/net/udp (proc(5)). */
  udp(): Promise<string>;
  /** What iptables-save prints; undefined: there is no such program. */
  rules(): Promise<string | undefined>;
  /** Whether iptables did it. */
  iptables(...words: readonly string[]): Promise<boolean>;
  /** The tap is a port of the bridge. */
  attach(tap: string, bridge: string): Promise<void>;
}

/** Where these programs are, whatever the agent was started with. */
const env = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' };

/** `namespace`: a file that is libvirtd's network namespace, where that is not this process's own. */
export function hostNet(namespace: string | undefined): HostNet {
  const ask = async (program: string, ...words: readonly string[]): Promise<string> => {
    const [first, ...rest] = namespace === undefined ? [program, ...words] : ['nsenter', `--net=${namespace}`, program, ...words];
    return (await run(first ?? program, rest, { timeout: RUN_MS, maxBuffer: OUTPUT_BYTES_MAX, env })).stdout;
  };
  return {
    udp: () => ask('cat', '/proc/net/udp'),
    rules: () => ask('iptables-save').catch((fault: unknown) => {
      if ((fault as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw fault;
    }),
    iptables: (...words) => ask('iptables', '-w', ...words).then(() => true, () => false),
    attach: async (tap, bridge) => { await ask('ip', 'link', 'set', 'dev', tap, 'master', bridge); },
  };
}
