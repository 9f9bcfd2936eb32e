/*
 * SSH by the `ssh` program: its configuration, agent and keys are then those that the user has. On the
 * other side virt-ssh-helper finds the daemon's socket and carries the bytes; where it is missing (before
 * libvirt 6.8), netcat does.
 *
 * Here a program is started with a list of arguments. There, ssh has no such thing: the words are put
 * together and read by the login shell of whoever logs in. So the script is a constant, what varies comes
 * in as arguments, each between apostrophes, and what an apostrophe does not hold in every shell (an
 * apostrophe, a backslash, an exclamation mark, a line's end) is refused.
 */
import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { Readable, Writable } from 'node:stream';
import { socketNames } from './target.ts';
import type { SshTransport } from './target.ts';

/** What a program said last is kept for its error. */
const complaintBytesMax = 2_000;
const endMsMax = 500;

// $1: helper, netcat or auto. $2: the driver. $3: -r or nothing. $4: the netcat. The rest: sockets, of which one without a path is a session's.
// OpenBSD's netcat stays behind when its input has ended, unless it is told -q 0.
const remoteScript = [
  'how=$1; uri=$2; readonly=$3; netcat=$4; shift 4',
  'if [ "$how" = helper ] || { [ "$how" = auto ] && command -v virt-ssh-helper >/dev/null 2>&1; }; then exec virt-ssh-helper $readonly -- "$uri"; fi',
  'case "$("$netcat" -h 2>&1)" in *"-q sec"*) quit="-q 0" ;; *) quit= ;; esac',
  'for socket in "$@"; do case "$socket" in /*) ;; *) socket="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/libvirt/$socket" ;; esac',
  'if [ -S "$socket" ]; then exec "$netcat" $quit -U "$socket"; fi; done',
  'echo "there is no socket of libvirtd at $*" >&2; exit 1',
].join('; ');

/** One word for any shell. Throws TypeError when there is no such. */
export function quoted(word: string): string {
  if (/['\\!\p{Cc}]/u.test(word)) throw new TypeError(`${JSON.stringify(word)} cannot be said to a shell on another machine`);
  return `'${word}'`;
}

/** Arguments of ssh. Throws TypeError for what cannot be said safely. */
export function sshArguments(transport: SshTransport, driver: string, readOnly: boolean): readonly string[] {
  const { host, port, user, keyFile, knownHostsFile, socket } = transport;
  // The helper cannot be told of a socket, so one that is named is netcat's.
  const named = socket !== undefined || transport.netcat !== undefined;
  const proxy = transport.proxy ?? 'auto';
  if (proxy === 'helper' && named) throw new TypeError('virt-ssh-helper finds the socket by itself: `socket` and `netcat` are for netcat');
  // Programs take such words for options, also behind a --.
  for (const word of [host, user]) if (word?.startsWith('-') === true || word === '') throw new TypeError(`${JSON.stringify(word)} is no name of a host or user`);
  if (knownHostsFile !== undefined && /["\p{Cc}]/u.test(knownHostsFile)) throw new TypeError('the name of the file of known hosts cannot be said to ssh');
  const url = /^(\w+):\/\/([^?]*)/.exec(driver);
  const session = url?.[2] === '/session';
  const names = socketNames(url?.[1] ?? '', transport.mode ?? 'auto', readOnly && !session ? '-ro' : '');
  // Old machines have no /run; the new ones have a link from /var/run to it.
  const sockets = socket !== undefined ? [socket] : names.map((name) => (session ? name : `/var/run/libvirt/${name}`));
  const words = [named ? 'netcat' : proxy, driver, readOnly ? '-r' : '', transport.netcat ?? 'nc', ...sockets];
  return [
    // No terminal there and no escape character: bytes are bytes.
    '-T',
    '-e',
    'none',
    ...(port === undefined ? [] : ['-p', String(port)]),
    ...(user === undefined ? [] : ['-l', user]),
    ...(keyFile === undefined ? [] : ['-i', keyFile]),
    ...(knownHostsFile === undefined ? [] : ['-o', `UserKnownHostsFile="${knownHostsFile}"`]),
    ...(transport.batch === true ? ['-o', 'BatchMode=yes'] : []),
    ...(transport.verifyServer === false ? ['-o', 'StrictHostKeyChecking=no'] : []),
    '--',
    host,
    `sh -c ${quoted(remoteScript)} sh ${words.map(quoted).join(' ')}`,
  ];
}

/** Starts it. Emits 'spawn' when it runs, and an error when it cannot or ends with a failure. */
export const runProgram = (program: string, args: readonly string[]): Duplex => new ProgramChannel(program, args);

class ProgramChannel extends Duplex {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #ended: Promise<void>;
  /** It has ended, and all that it said was heard. */
  readonly #closed: Promise<void>;

  constructor(program: string, args: readonly string[]) {
    super({ allowHalfOpen: false });
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], shell: false });
    this.#child = child;
    let complaint = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint = (complaint + text).slice(-complaintBytesMax)));
    child.once('spawn', () => this.emit('spawn'));
    child.once('error', (cause) => this.destroy(new Error(`${program} cannot be run`, { cause })));
    // A pipe that breaks is told better by how the program ended.
    child.stdin.on('error', () => {});
    child.stdout.on('error', () => {});
    child.stderr.on('error', () => {});
    child.stdout.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) child.stdout.pause();
    });
    this.#ended = new Promise((resolve) => child.once('exit', () => resolve()));
    // Not at the end of its output: only now it is known whether that was a failure.
    child.once('close', (status, signal) => {
      if (status === 0) return void this.push(null);
      const words = complaint.replaceAll(/[\p{Cc}]+/gu, ' ').trim();
      this.destroy(new Error(`${program} ended with ${status === null ? String(signal) : `status ${status}`}${words === '' ? '' : `: ${words}`}`));
    });
    this.#closed = new Promise((resolve) => child.once('close', () => resolve()));
  }

  override _read(): void {
    this.#child.stdout.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#child.stdin.write(chunk, this.#afterEnd(callback));
  }

  override _writev(chunks: { readonly chunk: Buffer }[], callback: (error?: Error | null) => void): void {
    this.#child.stdin.cork();
    for (const { chunk } of chunks.slice(0, -1)) this.#child.stdin.write(chunk);
    this.#child.stdin.write(chunks.at(-1)?.chunk ?? Buffer.alloc(0), this.#afterEnd(callback));
    this.#child.stdin.uncork();
  }

  /** A write that fails because the program has ended is told by how it ended, which is known a moment later. */
  #afterEnd(callback: (error?: Error | null) => void): (error?: Error | null) => void {
    return (error) => {
      if (error === undefined || error === null) return callback();
      void Promise.race([this.#closed, delay(endMsMax, undefined, { ref: false })]).then(() => callback(error));
    };
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#child.stdin.end(() => callback());
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    const child = this.#child;
    // The end of its input is the goodbye; who does not hear it is ended.
    child.stdin.end();
    child.stdout.destroy();
    child.stderr.destroy();
    if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) {
      const timer = setTimeout(() => child.kill('SIGTERM'), endMsMax);
      void this.#ended.then(() => clearTimeout(timer));
      child.unref();
    }
    callback(error);
  }
}
