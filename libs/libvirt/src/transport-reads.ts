/*
 * Reads of a socket into buffers of our own choice, past the socket's readable side.
 *
 * Left to itself a socket makes a buffer for every read. Answers and events are decoded before the next
 * read, so one buffer does for all of them, of all connections: a read and what follows from it happen in
 * one turn of the event loop. A stream's data is kept by whoever reads the stream, so a connection that
 * carries much of it reads into buffers of its own, and each place in them is used once.
 */
import type { OnReadOpts } from 'node:net';

/** More than a unix socket holds. */
const bytesAtOnce = 524_288;
/** A buffer with less room than that is not read into any more. */
const roomBytesMin = 65_536;
/** Less than that is copied, so that a few bytes do not keep a large buffer. */
const keptBytesMin = 16_384;

const shared = Buffer.allocUnsafeSlow(bytesAtOnce);

export class SocketReads {
  /** Gets what was read; it is valid until this returns, but for what `kept` gave. */
  onChunk: (chunk: Buffer) => void = () => {};
  /** Of the socket's options. */
  readonly onread: OnReadOpts;
  /** A buffer of this connection's own, while it carries streams. */
  #own: Buffer | undefined;
  #wantsOwn = false;
  /** What was read last lies in the buffer of its own, and somebody keeps it. */
  #kept = false;

  constructor() {
    let read = 0;
    this.onread = {
      buffer: () => this.#next(read),
      callback: (bytes, buffer) => {
        read = bytes;
        this.onChunk(Buffer.from(buffer.buffer, buffer.byteOffset, bytes));
        return true;
      },
    };
  }

  /** The same bytes, to keep. They must be of the chunk that is being told of. */
  kept(bytes: Buffer): Buffer {
    if (bytes.length < keptBytesMin) return Buffer.from(bytes);
    this.#wantsOwn = true;
    if (this.#own === undefined) return Buffer.from(bytes);
    this.#kept = true;
    return bytes;
  }

  /** There will be nothing to keep for now. */
  rest(): void {
    this.#wantsOwn = false;
  }

  /** Where the next read goes. */
  #next(read: number): Buffer {
    if (!this.#wantsOwn) {
      this.#own = undefined;
      return shared;
    }
    if (this.#kept) this.#own = this.#own?.subarray(read);
    this.#kept = false;
    if (this.#own === undefined || this.#own.length < roomBytesMin) this.#own = Buffer.allocUnsafeSlow(bytesAtOnce);
    return this.#own;
  }
}
