/*
 * A line: bytes both ways between a service and a node's agent, over messages that may be lost.
 *
 *   opener                                        answerer
 *     open {what}  ─────────────────────────────▶  decides
 *     ◀───────────────────────── beat | cut {code}     there it is, or why not
 *     data {at, bytes}  ◀───────────────────────▶  data
 *     beat {sent, consumed}  ◀──────────────────▶  each second, and whenever a quarter of the window was read
 *     end {sent}  ◀─────────────────────────────▶  nothing follows; the other way goes on
 *     cut {code, because}  ◀────────────────────▶  over at once, and why
 *
 * To whoever uses it, it is an ordinary Duplex; three things make it one.
 *
 * - Nothing is missing. Each piece says where in the stream it begins, and each beat how much was sent in
 *   all. So a piece that the bus dropped, the last one too, is noticed within a second, and the line is
 *   cut: half a picture is worth less than none, and whoever looks opens another.
 * - Nobody is flooded. A sender is ahead of what was read at the other end by a window at most, so a slow
 *   reader costs this much memory at either end and nothing in the bus's server. One that reads nothing
 *   for half a minute while something waits for it is cut, so that no guest waits for a sleeping browser.
 * - Neither end outlives the other. Who hears no beat for five of its own is alone. Beats are counted and
 *   not clocks read, so that a process that stood still for a while does not take the other for dead.
 *
 * TCP does all this, and cannot be had: an agent listens on no port, and any replica of a service must
 * reach it. JetStream would store every byte of every screen.
 */
import { Duplex } from 'node:stream';

/** How far a sender may be ahead of the reader at the other end, in bytes; both ends rely on it. */
export const WINDOW_BYTES = 262_144;
/** One message; a fraction of the bus's limit of 1 MiB, so that lines take turns. */
const PIECE_BYTES_MAX = 32_768;
const BEAT_MS = 1_000;
const BEATS_MISSED_MAX = 5;
const BEATS_STALLED_MAX = 30;
const REASON_BYTES_MAX = 4_096;

const kinds = { open: 1, data: 2, beat: 3, end: 4, cut: 5 } as const;

export interface Cut {
  /** `<thing>.<reason>`, as refusals have it. */
  readonly code: string;
  readonly because?: unknown;
}

export type Frame =
  | { readonly kind: 'open'; readonly what: unknown }
  | { readonly kind: 'data'; readonly at: number; readonly bytes: Buffer }
  | { readonly kind: 'beat'; readonly sent: number; readonly consumed: number }
  | { readonly kind: 'end'; readonly sent: number }
  | ({ readonly kind: 'cut' } & Cut);

/** The line is over before its end. `code` says why, in the words of whichever end ended it. */
export class LineCut extends Error {
  override readonly name = 'LineCut';
  readonly code: string;
  readonly because: unknown;
  constructor({ code, because }: Cut, options?: ErrorOptions) {
    super(`the line was cut: ${code}`, options);
    this.code = code;
    this.because = because;
  }
}

/** One byte of kind, then numbers as 8 bytes big-endian, then bytes or JSON. */
export function encodeFrame(frame: Frame): Buffer {
  switch (frame.kind) {
    case 'open':
      return Buffer.concat([Buffer.of(kinds.open), Buffer.from(JSON.stringify(frame.what))]);
    case 'data':
      return Buffer.concat([head(kinds.data, frame.at), frame.bytes]);
    case 'beat':
      return head(kinds.beat, frame.sent, frame.consumed);
    case 'end':
      return head(kinds.end, frame.sent);
    case 'cut':
      return Buffer.concat([Buffer.of(kinds.cut), Buffer.from(JSON.stringify({ code: frame.code, because: frame.because }))]);
  }
}

function head(kind: number, ...numbers: readonly number[]): Buffer {
  const made = Buffer.alloc(1 + 8 * numbers.length);
  made.writeUInt8(kind, 0);
  numbers.forEach((number, index) => made.writeBigUInt64BE(BigInt(number), 1 + 8 * index));
  return made;
}

/** Undefined for what is no frame: it came from the other end, which may be anybody's. */
export function decodeFrame(message: Uint8Array): Frame | undefined {
  const bytes = Buffer.from(message.buffer, message.byteOffset, message.byteLength);
  const number = (index: number): number => Number(bytes.readBigUInt64BE(1 + 8 * index));
  const isWhole = (...some: readonly number[]): boolean => some.every((one) => Number.isSafeInteger(one));
  switch (bytes[0]) {
    case kinds.open: {
      const what = bytes.length > 1 + REASON_BYTES_MAX ? undefined : jsonOf(bytes.subarray(1));
      return what === undefined ? undefined : { kind: 'open', what };
    }
    case kinds.data:
      return bytes.length > 9 && isWhole(number(0)) ? { kind: 'data', at: number(0), bytes: bytes.subarray(9) } : undefined;
    case kinds.beat:
      return bytes.length === 17 && isWhole(number(0), number(1)) ? { kind: 'beat', sent: number(0), consumed: number(1) } : undefined;
    case kinds.end:
      return bytes.length === 9 && isWhole(number(0)) ? { kind: 'end', sent: number(0) } : undefined;
    case kinds.cut: {
      const said = bytes.length > 1 + REASON_BYTES_MAX ? undefined : jsonOf(bytes.subarray(1));
      if (typeof said !== 'object' || said === null || !('code' in said) || typeof said.code !== 'string' || !/^[a-z_]{1,40}\.[a-z_]{1,60}$/.test(said.code)) return undefined;
      return { kind: 'cut', code: said.code, ...('because' in said ? { because: said.because } : {}) };
    }
    default:
      return undefined;
  }
}

function jsonOf(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8')) as unknown;
  } catch {
    return undefined;
  }
}

export interface LineOptions {
  /** Hands one message to the bus. What it throws cuts the line. */
  readonly send: (message: Buffer) => void;
  /** An opener counts as there from the start; an answerer once it has accepted. */
  readonly role: 'opener' | 'answerer';
}

/** One end. Destroyed without an error it cuts the line, unless both ways have ended. */
export class Line extends Duplex {
  readonly #send: LineOptions['send'];
  readonly #role: LineOptions['role'];
  readonly #beats: NodeJS.Timeout;
  readonly #opened = Promise.withResolvers<void>();
  #accepted: boolean;
  #heard = false;
  #missed = 0;
  #stalled = 0;
  /** Of our bytes: handed to the bus, and read at the other end. */
  #sent = 0;
  #acknowledged = 0;
  /** Of theirs: arrived, read here, and said to have been read. */
  #received = 0;
  #consumed = 0;
  #told = 0;
  #arrived: Buffer[] = [];
  #wanted = false;
  #endSent = false;
  #endReceived = false;
  #cutByOther = false;
  #leaving: { readonly bytes: Buffer; readonly done: (error?: Error | null) => void } | undefined;

  constructor({ send, role }: LineOptions) {
    super({ allowHalfOpen: false, readableHighWaterMark: PIECE_BYTES_MAX, writableHighWaterMark: PIECE_BYTES_MAX });
    this.#send = send;
    this.#role = role;
    this.#accepted = role === 'opener';
    this.#beats = setInterval(() => { this.#beat(); }, BEAT_MS);
    this.#opened.promise.catch(() => undefined);
    // It may be cut before anybody listens; pipeline() and `errored` still tell.
    this.on('error', () => undefined);
  }

  /** Resolves when the other end has taken the line; rejects with why it is over. */
  get opened(): Promise<void> {
    return this.#opened.promise;
  }
  get bytesSent(): number {
    return this.#sent;
  }
  get bytesReceived(): number {
    return this.#received;
  }

  /** The answerer takes it. */
  accept(): void {
    if (this.#accepted || this.destroyed) return;
    this.#accepted = true;
    this.#say({ kind: 'beat', sent: 0, consumed: 0 });
    this.#pump();
  }

  /** Ends it at once, and says why. */
  cut(code: string, because?: unknown): void {
    this.destroy(new LineCut(because === undefined ? { code } : { code, because }));
  }

  /** A message of the other end. */
  receive(message: Uint8Array): void {
    if (this.destroyed) return;
    const frame = decodeFrame(message);
    this.#missed = 0;
    if (frame === undefined) return this.cut('line.broken');
    if (frame.kind !== 'cut' && !this.#heard) {
      this.#heard = true;
      this.#opened.resolve();
    }
    switch (frame.kind) {
      case 'open':
        return;
      case 'data':
        return this.#take(frame.at, frame.bytes);
      case 'beat':
        if (frame.sent !== this.#received) return this.cut('line.lost');
        return this.#acknowledge(frame.consumed);
      case 'end':
        if (frame.sent !== this.#received) return this.cut('line.lost');
        this.#endReceived = true;
        return this.#feed();
      case 'cut':
        // All is here, and the other end has gone already.
        if (this.#endReceived && this.#endSent) return;
        this.#cutByOther = true;
        this.destroy(new LineCut(frame));
    }
  }

  #take(at: number, bytes: Buffer): void {
    if (at !== this.#received || this.#endReceived) return this.cut('line.lost');
    this.#received += bytes.length;
    // Whoever sends more than it may is not one of ours.
    if (this.#received - this.#consumed > WINDOW_BYTES) return this.cut('line.broken');
    this.#arrived.push(bytes);
    this.#feed();
  }

  #acknowledge(consumed: number): void {
    if (consumed > this.#sent) return this.cut('line.broken');
    if (consumed <= this.#acknowledged) return;
    this.#acknowledged = consumed;
    this.#stalled = 0;
    this.#pump();
  }

  #feed(): void {
    while (this.#wanted && this.#arrived.length > 0) {
      const bytes = this.#arrived.shift() as Buffer;
      this.#consumed += bytes.length;
      this.#stalled = 0;
      this.#wanted = this.push(bytes);
    }
    if (this.#consumed - this.#told >= WINDOW_BYTES / 4) this.#sayBeat();
    if (!this.#endReceived || this.#arrived.length > 0 || this.readableEnded) return;
    this.push(null);
    // Where nothing is left to read, nobody need read for it to be over.
    if (this.readableLength === 0) this.resume();
  }

  #pump(): void {
    while (this.#accepted && this.#leaving !== undefined && !this.destroyed) {
      const { bytes, done } = this.#leaving;
      const room = WINDOW_BYTES - (this.#sent - this.#acknowledged);
      if (bytes.length > 0 && room === 0) return;
      const piece = bytes.subarray(0, Math.min(bytes.length, room, PIECE_BYTES_MAX));
      const at = this.#sent;
      this.#sent += piece.length;
      this.#leaving = piece.length === bytes.length ? undefined : { bytes: bytes.subarray(piece.length), done };
      if (piece.length > 0) this.#say({ kind: 'data', at, bytes: piece });
      if (this.#leaving === undefined) done();
    }
  }

  #beat(): void {
    if (this.#accepted) this.#sayBeat();
    // Until it is answered an opener waits as long as its user does. What has ended says nothing any more.
    if ((this.#heard || this.#role === 'answerer') && !this.#endReceived && (this.#missed += 1) > BEATS_MISSED_MAX) return this.cut('line.silent');
    const isOwed = this.#leaving !== undefined && this.#accepted;
    const isLeftLying = this.#endReceived && this.#endSent;
    if ((isOwed || isLeftLying) && (this.#stalled += 1) > BEATS_STALLED_MAX) this.cut('line.stalled');
  }

  #sayBeat(): void {
    this.#told = this.#consumed;
    // The other end may be gone then, and nobody waits for this.
    if (this.#endReceived && this.#endSent) return;
    this.#say({ kind: 'beat', sent: this.#sent, consumed: this.#consumed });
  }

  #say(frame: Frame): void {
    try {
      this.#send(encodeFrame(frame));
    } catch (cause) {
      this.#cutByOther = true;
      this.destroy(new LineCut({ code: 'line.lost' }, { cause }));
    }
  }

  override _read(): void {
    this.#wanted = true;
    this.#feed();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#leaving = { bytes: chunk, done };
    this.#stalled = 0;
    this.#pump();
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#endSent = true;
    this.#say({ kind: 'end', sent: this.#sent });
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    clearInterval(this.#beats);
    this.#arrived = [];
    this.#leaving = undefined;
    const cut = error instanceof LineCut ? error : new LineCut({ code: 'line.closed' });
    if (!this.#cutByOther && !(this.#endSent && this.#endReceived)) {
      // A reason that does not fit is left out; the code always fits.
      const whole = encodeFrame({ kind: 'cut', code: cut.code, ...(cut.because === undefined ? {} : { because: cut.because }) });
      try {
        this.#send(whole.length > REASON_BYTES_MAX ? encodeFrame({ kind: 'cut', code: cut.code }) : whole);
      } catch {
        // The bus is away; the other end hears no beat.
      }
    }
    this.#opened.reject(cut);
    done(error);
  }
}
