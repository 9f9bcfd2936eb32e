/*
 * A libvirt stream as a Node Duplex.
 *
 *   open ──▶ data in both directions ──▶ the daemon's end (an empty packet), or ours ──▶ finish, which
 *   both sides say ──▶ closed
 *
 * The daemon's end also ends our side, because no stream of libvirt goes on in one direction after it.
 * destroy() before the end tells the daemon to give up. A reader that is slow stops the reading of the
 * whole connection, since the protocol has no other brake: give a stream its own connection, and one
 * without keepalive when its reader may pause for long.
 *
 * A sparse stream (flag `sparse` of the call) has holes: lengths without bytes, which are zero. Written
 * they are `writeHole`. Read as bytes, a hole is zeros, made as fast as they are read; `segments` gives
 * the holes themselves. What comes waits in one queue, from which one of the two takes.
 */
import { Duplex, Readable, Writable } from 'node:stream';
import type { ReadableStream, WritableStream } from 'node:stream/web';
import type { StreamDirection } from './procedure.ts';
import { streamPayloadBytesMax } from './rpc.ts';
import type { StreamPort, StreamSink } from './rpc.ts';
import { XdrError } from './xdr.ts';

/** Bytes that may wait for their reader before the connection is paused. */
const waitingBytesMax = 262_144;
/** More than that a daemon sends only when it never answers the call that opened the stream: until then the connection is not paused. */
const unansweredBytesMax = 67_108_864;
/** Bytes taken from those that wait before they are asked for. Few: what has been taken in several pieces is read as one, which is a copy. */
const takenBytesMax = 16_384;
/** A hole read as bytes comes in pieces of this size. */
const zerosBytesMax = 65_536;

/** A hole: so many bytes that are zero and were not sent. */
export interface Hole {
  readonly holeBytes: number;
}
export type Segment = Buffer | Hole;

/** What waits for the reader: data, or the length of a hole. */
type Waiting = Buffer | number;

export class LibvirtStream extends Duplex implements StreamSink {
  readonly #port: StreamPort;
  readonly #direction: StreamDirection;
  readonly #sparse: boolean;
  #finishing: ((error?: Error | null) => void) | undefined;
  /** Both sides have said that they are done, or the daemon has failed the stream. */
  #settled = false;
  #readEnded = false;
  readonly #waiting: Waiting[] = [];
  #waitingBytes = 0;
  /** The bytes' reader has room. */
  #wanted = false;
  /** Someone reads segments, and waits when there is a function here. */
  #segmented = false;
  #wakeSegments: (() => void) | undefined;
  /** Empty writes that stand for holes, in their place among the data. */
  readonly #holes = new WeakMap<Uint8Array, number>();

  constructor(port: StreamPort, direction: StreamDirection = 'both', sparse = false) {
    super({ readableHighWaterMark: takenBytesMax, writableHighWaterMark: waitingBytesMax });
    this.#port = port;
    this.#direction = direction;
    this.#sparse = sparse;
    // It may fail before its opener has it. Reading, pipeline() and `errored` still tell.
    this.on('error', () => {});
    if (direction === 'up') {
      // Nobody reads what only takes: without this it would never be over.
      this.#readEnded = true;
      this.push(null);
      this.resume();
    }
  }

  /** Skips so many bytes of the volume, which shall be zero; for streams opened with `sparse`, else a TypeError. Answers as write() does. */
  writeHole(bytes: number, callback?: (error: Error | null | undefined) => void): boolean {
    // libvirtd would end the whole connection.
    if (!this.#sparse) throw new TypeError(`${this.#port.call}: a hole can be written only to a stream that was opened with the flag sparse`);
    if (!Number.isSafeInteger(bytes) || bytes < 1) throw new RangeError('a hole has a whole number of bytes, from 1');
    const place = Buffer.alloc(0);
    this.#holes.set(place, bytes);
    return this.write(place, callback);
  }

  /** Data and holes as they come, in place of reading bytes. One reader; leaving early gives the stream up. */
  async *segments(): AsyncGenerator<Segment, void, undefined> {
    if (this.#segmented || this.#wanted || this.readableFlowing !== null) throw new Error('this stream is being read already');
    this.#segmented = true;
    try {
      for (;;) {
        const next = this.#waiting.shift();
        if (next !== undefined) {
          if (typeof next !== 'number') this.#waitingBytes -= next.length;
          if (this.#waiting.length === 0) this.#port.pause(false);
          yield typeof next === 'number' ? { holeBytes: next } : next;
        } else if (this.errored !== null) {
          throw this.errored;
        } else if (this.#readEnded || this.destroyed) {
          // Only now: an end that is read closes the stream, and what waits with it.
          this.push(null);
          this.resume();
          return;
        } else {
          await new Promise<void>((resolve) => (this.#wakeSegments = resolve));
        }
      }
    } finally {
      if (!this.#readEnded || this.#waiting.length > 0) this.destroy();
    }
  }

  /** As web streams. The side that the call does not have is closed, or takes nothing. */
  toWeb(): { readonly readable: ReadableStream<Uint8Array>; readonly writable: WritableStream<Uint8Array> } {
    return { readable: Readable.toWeb(this) as ReadableStream<Uint8Array>, writable: Writable.toWeb(this) as WritableStream<Uint8Array> };
  }

  onData(data: Buffer): void {
    this.#arrived(data, data.length);
  }

  onHole(bytes: number): void {
    this.#arrived(bytes, 0);
  }

  #arrived(one: Waiting, bytes: number): void {
    if (this.destroyed || this.#readEnded) return;
    this.#waiting.push(one);
    this.#waitingBytes += bytes;
    if (this.#waitingBytes > unansweredBytesMax) throw new XdrError(`${this.#port.call}: ${this.#waitingBytes} bytes of a stream that was not opened`);
    this.#feed();
    // Whatever a hole would become, it is behind those that wait.
    if (this.#waitingBytes >= waitingBytesMax || this.#waiting.length > 64) this.#port.pause(true);
  }

  onEnd(): void {
    if (this.destroyed) return;
    this.#endReading();
    if (!this.writableEnded) this.end();
  }

  onFinished(): void {
    this.#settled = true;
    if (this.destroyed) return;
    this.#endReading();
    const finishing = this.#finishing;
    this.#finishing = undefined;
    if (finishing === undefined) this.end();
    else finishing();
  }

  onError(error: Error): void {
    this.#settled = true;
    this.#finishing = undefined;
    this.destroy(error);
  }

  #endReading(): void {
    if (this.#readEnded) return;
    this.#readEnded = true;
    this.#feed();
  }

  /** Gives what waits to whoever reads, and the end behind it. */
  #feed(): void {
    if (this.#segmented) {
      this.#wakeSegments?.();
      this.#wakeSegments = undefined;
      return;
    }
    while (this.#wanted && this.#waiting.length > 0) {
      const next = this.#waiting[0] as Waiting;
      let piece: Buffer;
      if (typeof next === 'number') {
        piece = Buffer.alloc(Math.min(next, zerosBytesMax));
        if (next > piece.length) this.#waiting[0] = next - piece.length;
        else this.#waiting.shift();
      } else {
        piece = next;
        this.#waiting.shift();
        this.#waitingBytes -= piece.length;
      }
      this.#wanted = this.push(piece);
    }
    if (this.#waiting.length > 0) return;
    if (this.#readEnded) this.push(null);
    if (this.#wanted || this.#readEnded) this.#port.pause(false);
  }

  override _read(): void {
    if (this.#segmented) return;
    this.#wanted = true;
    this.#feed();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    if (this.#direction === 'down') return callback(new TypeError(`${this.#port.call}: nothing can be written to this stream`));
    const holeBytes = this.#holes.get(chunk);
    if (holeBytes !== undefined) return this.#port.sendHole(holeBytes, callback);
    // An empty packet would mean the end.
    if (chunk.length === 0) return callback();
    const sendFrom = (offset: number) => {
      const end = Math.min(chunk.length, offset + streamPayloadBytesMax);
      this.#port.send(chunk.subarray(offset, end), (error) => {
        if (error !== undefined && error !== null) callback(error);
        else if (end === chunk.length || this.destroyed) callback();
        else sendFrom(end);
      });
    };
    sendFrom(0);
  }

  override _final(callback: (error?: Error | null) => void): void {
    if (this.#settled) return callback();
    this.#finishing = callback;
    this.#port.finish();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#waiting.length = 0;
    this.#waitingBytes = 0;
    this.#port.pause(false);
    if (!this.#settled) this.#port.abort();
    this.#settled = true;
    // After this turn `errored` is set, which tells the reader of segments why.
    const wake = this.#wakeSegments;
    this.#wakeSegments = undefined;
    if (wake !== undefined) process.nextTick(wake);
    callback(error);
  }
}
