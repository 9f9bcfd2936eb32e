/*
 * A password before a screen (RFC 6143, 7.1.2 and 7.2.2), asked for by the agent, which stands between whoever looks and
 * QEMU. QEMU could ask itself, but only if it was started so, and it would have the password in its monitor; here it is
 * asked from the next connection on, whatever was running, and libvirt's XML never holds it.
 *
 * The scheme is as weak as RFB has it: 8 characters, DES. It stands behind a token that opens one console once.
 */
import { createCipheriv, randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { LineCut } from '@chronovirt/messaging/line';

const VERSION = 'RFB 003.008\n';
const NONE = 1;
const VNC_AUTHENTICATION = 2;
const CHALLENGE_BYTES = 16;
/** Whoever types it is given this long, in milliseconds. */
const TYPING_MS = 120_000;
const SERVER_MS = 10_000;

/** Exactly so many bytes. Throws when the stream ends before, or the time does. */
async function read(stream: Duplex, bytes: number, signal: AbortSignal): Promise<Buffer> {
  for (;;) {
    const chunk = stream.read(bytes) as Buffer | null;
    if (chunk?.length === bytes) return chunk;
    if (chunk !== null || stream.readableEnded || stream.destroyed) throw new LineCut({ code: 'console.client_gone' });
    await Promise.race([once(stream, 'readable', { signal }), once(stream, 'end', { signal }), once(stream, 'close', { signal })]);
  }
}

/** Each byte with its bits the other way round: so VNC makes a key of a password. */
const keyOf = (password: string): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.write(password.slice(0, 8), 'latin1');
  return bytes.map((byte) => Array.from({ length: 8 }, (_, bit) => ((byte >> bit) & 1) << (7 - bit)).reduce((sum, one) => sum + one, 0)) as Buffer;
};

/** What whoever has the password makes of a challenge. */
export const responseTo = (challenge: Buffer, password: string): Buffer => {
  const key = keyOf(password);
  // DES is triple DES with one key thrice.
  const cipher = createCipheriv('des-ede3-ecb', Buffer.concat([key, key, key]), null).setAutoPadding(false);
  return Buffer.concat([cipher.update(challenge), cipher.final()]);
};

const failure = (reason: string): Buffer => {
  const text = Buffer.from(reason, 'latin1');
  const head = Buffer.alloc(8);
  head.writeUInt32BE(1, 0);
  head.writeUInt32BE(text.length, 4);
  return Buffer.concat([head, text]);
};

/** Shakes hands with the client, who has to know the password, and then with the server, which asks for none; both go on with what comes next. Throws a LineCut. */
export async function askForPassword(client: Duplex, server: Duplex, password: string): Promise<void> {
  const signal = AbortSignal.timeout(TYPING_MS);
  const cut = (cause: unknown): never => { throw cause instanceof LineCut ? cause : new LineCut({ code: 'console.idle' }); };
  client.write(VERSION);
  const version = await read(client, VERSION.length, signal).catch(cut);
  if (version.toString('latin1') !== VERSION) {
    client.write(Buffer.concat([Buffer.of(0), failure('RFB 3.8 is spoken here').subarray(4)]));
    throw new LineCut({ code: 'console.password_refused', because: { says: 'the client does not speak RFB 3.8' } });
  }
  client.write(Buffer.of(1, VNC_AUTHENTICATION));
  const [type] = await read(client, 1, signal).catch(cut);
  const challenge = randomBytes(CHALLENGE_BYTES);
  if (type === VNC_AUTHENTICATION) client.write(challenge);
  const response = type === VNC_AUTHENTICATION ? await read(client, CHALLENGE_BYTES, signal).catch(cut) : undefined;
  if (response === undefined || !timingSafeEqual(response, responseTo(challenge, password))) {
    client.write(failure('the password is wrong'));
    throw new LineCut({ code: 'console.password_refused' });
  }
  await greet(server);
  client.write(Buffer.alloc(4));
}

async function greet(server: Duplex): Promise<void> {
  const signal = AbortSignal.timeout(SERVER_MS);
  const broken = (): never => { throw new LineCut({ code: 'console.broken' }); };
  await read(server, VERSION.length, signal).catch(broken);
  server.write(VERSION);
  const [count = 0] = await read(server, 1, signal).catch(broken);
  const types = await read(server, count, signal).catch(broken);
  if (!types.includes(NONE)) broken();
  server.write(Buffer.of(NONE));
  if ((await read(server, 4, signal).catch(broken)).readUInt32BE() !== 0) broken();
}
