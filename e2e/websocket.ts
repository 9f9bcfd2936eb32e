/* Consoles as clients see them: bytes in and out, the end with its code, and the first words of RFB. */
import { execFileSync } from 'node:child_process';
import type { Rest } from './rest.ts';

export interface Offer {
  readonly url: string;
  readonly token: string;
  readonly expiresAt: string;
}

export interface ConsoleClient {
  send(bytes: string | Uint8Array): void;
  /** Everything that came, as text. */
  text(): string;
  /** Resolves once what came since the last call holds this. */
  says(pattern: RegExp, withinMs?: number): Promise<string>;
  /** The next bytes, so many. */
  read(count: number, withinMs?: number): Promise<Buffer>;
  close(): void;
  /** How it ended. */
  readonly closed: Promise<{ readonly code: number; readonly reason: string }>;
}

const SAID_WITHIN_MS = 30_000;

export const offered = (rest: Rest, vm: { readonly id: string }, kind: 'vnc' | 'serial'): Promise<Offer> => rest.ok<Offer>('POST', `/v1/vms/${vm.id}/console`, { kind });

/** Connects; rejects when no WebSocket comes to be. */
export async function connectConsole({ url, token }: Pick<Offer, 'url' | 'token'>): Promise<ConsoleClient> {
  const socket = new WebSocket(url, ['chronovirt.console', `cv-token.${token}`]);
  socket.binaryType = 'arraybuffer';
  let came = Buffer.alloc(0);
  let taken = 0;
  const wakes = new Set<() => void>();
  const { promise: closed, resolve } = Promise.withResolvers<{ readonly code: number; readonly reason: string }>();
  let end: string | undefined;
  const wake = (): void => { for (const one of [...wakes]) one(); };
  socket.addEventListener('message', ({ data }) => {
    came = Buffer.concat([came, Buffer.from(data as ArrayBuffer)]);
    wake();
  });
  socket.addEventListener('close', ({ code, reason }) => {
    end = `${String(code)} ${reason}`;
    resolve({ code, reason });
    wake();
  });
  const until = async <T>(what: string, ask: () => T | undefined, withinMs: number): Promise<T> => {
    const late = performance.now() + withinMs;
    for (;;) {
      const found = ask();
      if (found !== undefined) return found;
      const why = end !== undefined ? `it was closed: ${end}` : performance.now() > late ? 'not in time' : undefined;
      if (why !== undefined) throw new Error(`${what}: ${why}; it said ${JSON.stringify(came.subarray(-500).toString('latin1'))}`);
      await new Promise<void>((go) => {
        const timer = setTimeout(() => { done(); }, 200);
        const done = (): void => {
          clearTimeout(timer);
          wakes.delete(done);
          go();
        };
        wakes.add(done);
      });
    }
  };
  await new Promise<void>((go, refuse) => {
    socket.addEventListener('open', () => { go(); }, { once: true });
    socket.addEventListener('error', () => { refuse(new Error('no WebSocket')); }, { once: true });
  });
  return {
    closed,
    send: (bytes) => { socket.send(typeof bytes === 'string' ? new TextEncoder().encode(bytes) : new Uint8Array(bytes)); },
    text: () => came.toString('utf8'),
    says: (pattern, withinMs = SAID_WITHIN_MS) => until(`says ${String(pattern)}`, () => {
      const match = pattern.exec(came.subarray(taken).toString('utf8'));
      if (match === null) return undefined;
      taken += Buffer.byteLength(came.subarray(taken).toString('utf8').slice(0, match.index + match[0].length));
      return match[0];
    }, withinMs),
    read: (count, withinMs = SAID_WITHIN_MS) => until(`${String(count)} bytes`, () => {
      if (came.length - taken < count) return undefined;
      taken += count;
      return came.subarray(taken - count, taken);
    }, withinMs),
    close: () => { socket.close(); },
  };
}

export interface Screen {
  readonly width: number;
  readonly height: number;
  readonly name: string;
  /** Of the whole screen, 4 bytes each. */
  readonly pixels: Buffer;
}

/** By openssl's own DES, as any client does it (RFC 6143, 7.2.2): the key has its bits the other way round. */
const vncResponse = (challenge: Buffer, password: string): Buffer => {
  const key = Buffer.from([...Buffer.from(password.padEnd(8, '\0'), 'latin1')].map((byte) => parseInt(byte.toString(2).padStart(8, '0').split('').reverse().join(''), 2)));
  return execFileSync('openssl', ['enc', '-des-ecb', '-nosalt', '-nopad', '-K', key.toString('hex'), '-provider', 'legacy', '-provider', 'default'], { input: challenge });
};

/** Shakes hands and asks for the whole screen once (RFC 6143: 7.1 to 7.3, 7.5.3, 7.6.1, encoding Raw). */
export async function readScreen(client: ConsoleClient, password?: string): Promise<Screen> {
  const version = (await client.read(12)).toString('latin1');
  if (version !== 'RFB 003.008\n') throw new Error(`not RFB 3.8: ${version}`);
  client.send('RFB 003.008\n');
  const types = await client.read((await client.read(1)).readUInt8());
  if (types.includes(1) !== (password === undefined)) throw new Error(password === undefined ? 'it wants a password' : 'it wants no password');
  client.send(Uint8Array.of(password === undefined ? 1 : 2));
  if (password !== undefined) client.send(vncResponse(await client.read(16), password));
  if ((await client.read(4)).readUInt32BE() !== 0) throw new Error(`the handshake was refused: ${(await client.read((await client.read(4)).readUInt32BE())).toString('latin1')}`);
  client.send(Uint8Array.of(1));
  const init = await client.read(24);
  const [width, height] = [init.readUInt16BE(0), init.readUInt16BE(2)];
  const name = (await client.read(init.readUInt32BE(20))).toString('utf8');
  // SetEncodings: one, Raw. FramebufferUpdateRequest: all of it.
  client.send(Uint8Array.of(2, 0, 0, 1, 0, 0, 0, 0));
  const request = Buffer.alloc(10);
  request.set([3, 0]);
  request.writeUInt16BE(width, 6);
  request.writeUInt16BE(height, 8);
  client.send(request);
  const pixels = Buffer.alloc(width * height * 4);
  let covered = 0;
  while (covered < width * height) {
    const head = await client.read(4);
    if (head.readUInt8(0) !== 0) throw new Error(`not a FramebufferUpdate: ${String(head.readUInt8(0))}`);
    for (let left = head.readUInt16BE(2); left > 0; left--) {
      const rectangle = await client.read(12);
      const [x, y, w, h] = [0, 2, 4, 6].map((at) => rectangle.readUInt16BE(at)) as [number, number, number, number];
      if (rectangle.readInt32BE(8) !== 0) throw new Error('not Raw');
      const data = await client.read(w * h * 4);
      for (let row = 0; row < h; row++) data.copy(pixels, ((y + row) * width + x) * 4, row * w * 4, (row + 1) * w * 4);
      covered += w * h;
    }
  }
  return { width, height, name, pixels };
}
