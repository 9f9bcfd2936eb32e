/*
 * From a target to a channel: a byte stream to the daemon, and what must be known of it.
 *
 * The bytes are the same on every transport. What differs:
 *
 * - TLS has one byte of its own before them (transport-tls.ts), and wants every packet in a record of
 *   its own: libvirtd reads one packet of a record and then waits for the socket, although the next is
 *   in its hands already. Packets that share a record hang until something else is sent.
 * - SSH is the input and output of a program (transport-ssh.ts).
 * - Whether others can read along decides which ways of authentication are taken.
 */
import { createConnection } from 'node:net';
import type { OnReadOpts, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { RemoteTarget, Target } from './target.ts';
import { settled } from './transport-opening.ts';
import type { OpenOptions } from './transport-opening.ts';
import { SocketReads } from './transport-reads.ts';
import { runProgram, sshArguments } from './transport-ssh.ts';
import { connectTls } from './transport-tls.ts';

export interface Channel {
  readonly socket: Duplex;
  /** Gets what comes in place of the socket's `data` events. The socket is paused. */
  readonly reads?: SocketReads;
  /** Each packet is written when the one before it has left. */
  readonly packetsApart: boolean;
  /** Nobody but the daemon can read what is sent. */
  readonly confidential: boolean;
  /** Where it leads, for people. */
  readonly where: string;
}

/**
 * Reaches the daemon; says nothing to it yet. Throws `Disconnected`. A program's failure (ssh has no
 * way there) is seen only later, as the error of its channel.
 */
export async function openChannel(target: Target | RemoteTarget, options: OpenOptions): Promise<Channel> {
  if ('socket' in target) {
    const where = `libvirtd at ${target.socket}`;
    const { socket, reads } = readDirectly((onread) => createConnection({ path: target.socket, onread }));
    return { socket: await connected(where, socket, options), reads, packetsApart: false, confidential: true, where };
  }
  const { transport } = target;
  switch (transport.kind) {
    case 'tcp': {
      const where = `libvirtd at ${transport.host}:${transport.port}`;
      const { socket, reads } = readDirectly((onread) => createConnection({ host: transport.host, port: transport.port, noDelay: true, keepAlive: true, onread }));
      return { socket: await connected(where, socket, options), reads, packetsApart: false, confidential: false, where };
    }
    case 'tls': {
      const where = `libvirtd at ${transport.host}:${transport.port}`;
      const raw = await connected(where, createConnection({ host: transport.host, port: transport.port, noDelay: true, keepAlive: true }), options);
      const socket = await connectTls(where, raw, transport, options);
      return { socket, packetsApart: true, confidential: transport.verifyServer !== false, where };
    }
    case 'ssh': {
      const where = `libvirtd at ${transport.host} through ssh`;
      const program = transport.program ?? 'ssh';
      const args = sshArguments(transport, target.driver, options.readOnly);
      return { socket: await started(where, program, args, options), packetsApart: false, confidential: transport.verifyServer !== false, where };
    }
    case 'stream':
      return { socket: transport.open(), packetsApart: false, confidential: false, where: 'libvirtd behind a stream' };
    case 'program': {
      const where = `libvirtd through ${transport.program}`;
      // Where it leads is unknown here.
      return { socket: await started(where, transport.program, transport.args ?? [], options), packetsApart: false, confidential: false, where };
    }
  }
}

/** Nothing is read before someone takes it: whoever does resumes the socket. */
function readDirectly(connecting: (onread: OnReadOpts) => Socket): { readonly socket: Socket; readonly reads: SocketReads } {
  const reads = new SocketReads();
  const socket = connecting(reads.onread);
  socket.pause();
  return { socket, reads };
}

const started = (where: string, program: string, args: readonly string[], { signal, timeoutMs }: OpenOptions): Promise<Duplex> =>
  settled(where, signal, timeoutMs, (resolve, reject) => {
    const duplex = runProgram(program, args);
    duplex.once('spawn', () => resolve(duplex));
    duplex.once('error', (cause: Error) => reject({ kind: 'socketError', message: `${where} cannot be reached: ${cause.message}`, cause }));
    return duplex;
  });

const connected = <S extends Duplex>(where: string, socket: S, { signal, timeoutMs }: OpenOptions): Promise<S> =>
  settled(where, signal, timeoutMs, (resolve, reject) => {
    socket.once('connect', () => resolve(socket));
    socket.once('error', (cause) => reject({ kind: 'socketError', message: `${where} cannot be reached`, cause }));
    return socket;
  });
