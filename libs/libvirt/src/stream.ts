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
 */
import { Duplex } from 'node:stream';
import { streamPayloadBytesMax } from './rpc.ts';
import type { StreamPort, StreamSink } from './rpc.ts';

/** Bytes that may wait for their reader before the connection is paused. */
const waitingBytesMax = 262_144;

export class LibvirtStream extends Duplex implements StreamSink {
  readonly #port: StreamPort;
  #finishing: ((error?: Error | null) => void) | undefined;
  /** Both sides have said that they are done, or the daemon has failed the stream. */
  #settled = false;
  #readEnded = false;

  constructor(port: StreamPort) {
    super({ readableHighWaterMark: waitingBytesMax, writableHighWaterMark: waitingBytesMax });
    this.#port = port;
    // It may fail before its opener has it. Reading, pipeline() and `errored` still tell.
    this.on('error', () => {});
  }

  onData(data: Buffer): void {
    if (this.destroyed || this.#readEnded) return;
    if (!this.push(data)) this.#port.pause(true);
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
    this.push(null);
  }

  override _read(): void {
    this.#port.pause(false);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    let offset = 0;
    while (chunk.length - offset > streamPayloadBytesMax) {
      this.#port.send(chunk.subarray(offset, offset + streamPayloadBytesMax), () => {});
      offset += streamPayloadBytesMax;
    }
    // An empty packet would mean the end.
    if (chunk.length === 0) callback();
    else this.#port.send(chunk.subarray(offset), callback);
  }

  override _final(callback: (error?: Error | null) => void): void {
    if (this.#settled) return callback();
    this.#finishing = callback;
    this.#port.finish();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#port.pause(false);
    if (!this.#settled) this.#port.abort();
    this.#settled = true;
    callback(error);
  }
}
