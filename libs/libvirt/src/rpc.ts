/*
 * libvirt's RPC over one byte stream.
 *
 * A packet is a length (which counts itself), a header of six words and a payload. Replies name the
 * serial of their call and come in any order. Events and keepalive are packets of type MESSAGE, and
 * their serial is meaningless. A stream's packets carry the serial of the call that opened it.
 *
 * Three properties of the daemon shape what is below.
 *
 * - It has no time limits and no cancel. A call given up on here still holds a worker there, so it
 *   keeps its place in our count until its reply comes, which is then dropped.
 * - It stops reading a connection that has `max_client_requests` calls unanswered, keepalive
 *   included. So calls are counted and wait here, and the last place is for high-priority
 *   procedures, which the daemon answers although guests hang.
 * - A stream has no flow control but to stop reading the socket, which stops everything else too.
 *   Bulk streams therefore want a connection of their own.
 *
 * What the peer sends is not trusted: a packet that breaks the rules ends the connection with a
 * reason, never the process, and what is buffered is at most one packet. A stream's data is given on
 * as it comes and never put together.
 */
import type { Duplex } from 'node:stream';
import { CallAborted, CallRefused, CallTimeout, Disconnected, errorCodes, errorLevel, LibvirtError, UnsupportedError } from './errors.ts';
import type { CloseReason } from './errors.ts';
import { remoteError } from './layouts.ts';
import type { RemoteError } from './layouts.ts';
import { programs } from './procedures.ts';
import type { Priority } from './procedures.ts';
import type { SocketReads } from './transport-reads.ts';
import { i64Number, Reader, struct, u32, Writer, XdrError } from './xdr.ts';

export const messageType = { call: 0, reply: 1, message: 2, stream: 3, callWithFds: 4, replyWithFds: 5, streamHole: 6 } as const;
export const messageStatus = { ok: 0, error: 1, continue: 2 } as const;
export const packetBytesMin = 28;
/** VIR_NET_MESSAGE_MAX and the length word itself. */
export const packetBytesMax = 33_554_432 + 4;
/** What any packet may take before it has come: more than a packet of stream data. */
const roomBytesAtOnce = 524_288;
/** Every version takes this much stream data in one packet. */
export const streamPayloadBytesMax = 262_120;
const protocolVersion = 1;
const keepaliveProcedure = { ping: 1, pong: 2 } as const;
const serialMax = 0x7fff_ffff;
/** Node's timers take a larger number for 1. */
const timerMsMax = 0x7fff_ffff;
/** Streams that have ended may still be spoken of for a moment (an error, and then the answer to our end). */
const endedStreamsKept = 256;
/** Answers to pings that may wait for the daemon to read: it could otherwise ask without end and read nothing. */
const pongsWaitingMax = 8;

const writer = new Writer(packetBytesMax);
/** Smaller packets are put together before they are written. */
const gatheredPacketBytesMax = 4_096;
const nothing = () => {};
const nothingYet = Buffer.alloc(0);
const streamHole = struct({ length: i64Number, flags: u32 });

export interface PacketHeader {
  readonly program: number;
  readonly procedure: number;
  readonly type: number;
  readonly serial: number;
  readonly status: number;
}

/** One whole packet. `encode` writes the payload. Throws XdrError when a value does not fit its layout. */
export function encodePacket(header: PacketHeader, encode: (writer: Writer) => void): Buffer {
  writer.reset();
  writer.u32(0);
  writer.u32(header.program);
  writer.u32(protocolVersion);
  writer.i32(header.procedure);
  writer.i32(header.type);
  writer.u32(header.serial);
  writer.i32(header.status);
  encode(writer);
  writer.patchU32(0, writer.bytes);
  return writer.take();
}

/** Takes payloads in the pieces in which they come. */
export interface PieceTaker {
  /** Whether this packet's payload is wanted so. `head` begins with its length and its header; there is a payload. */
  takes(head: Buffer): boolean;
  /** False when nothing more of the chunk is wanted. */
  onPiece(piece: Buffer): boolean;
}

/** Cuts a byte stream into packets. Holds at most one, of at most `packetBytesMax`, and of one that is taken in pieces only the header. */
export class PacketSplitter {
  readonly #pieces: PieceTaker | undefined;
  /** Bytes of a packet that is not complete yet. */
  #partial: Buffer = nothingYet;
  #partialBytes = 0;
  /** What is to come of a payload that is taken in pieces. */
  #pieceBytesLeft = 0;

  constructor(pieces?: PieceTaker) {
    this.#pieces = pieces;
  }

  /** Calls `onPacket` for each packet that `chunk` completes, until it answers false. Throws XdrError on an impossible length. */
  push(chunk: Buffer, onPacket: (packet: Buffer) => boolean): void {
    let offset = 0;
    while (offset < chunk.length) {
      const left = chunk.length - offset;
      if (this.#pieceBytesLeft > 0) {
        const taken = Math.min(left, this.#pieceBytesLeft);
        this.#pieceBytesLeft -= taken;
        offset += taken;
        if (this.#pieces?.onPiece(chunk.subarray(offset - taken, offset)) === false) return;
      } else if (this.#partialBytes > 0) {
        const wanted = this.#bytesWanted();
        const taken = Math.min(left, wanted - this.#partialBytes);
        this.#append(chunk.subarray(offset, offset + taken), wanted);
        offset += taken;
        if (!this.#grown(onPacket)) return;
      } else if (left < 4) {
        this.#append(chunk.subarray(offset), 4);
        return;
      } else {
        const length = packetLength(chunk, offset);
        if (left >= length) {
          offset += length;
          if (!onPacket(chunk.subarray(offset - length, offset))) return;
        } else if (left >= packetBytesMin && this.#pieces?.takes(chunk.subarray(offset)) === true) {
          this.#pieceBytesLeft = length - packetBytesMin;
          offset += packetBytesMin;
        } else {
          this.#append(chunk.subarray(offset), left < packetBytesMin ? packetBytesMin : length);
          return;
        }
      }
    }
  }

  /** The next size at which there is something to say of what is partial: its length, its header, its end. */
  #bytesWanted(): number {
    if (this.#partialBytes < 4) return 4;
    return this.#partialBytes < packetBytesMin ? packetBytesMin : packetLength(this.#partial, 0);
  }

  #grown(onPacket: (packet: Buffer) => boolean): boolean {
    const bytes = this.#partialBytes;
    if (bytes < 4) return true;
    const length = packetLength(this.#partial, 0);
    if (bytes === length) {
      const packet = this.#partial.subarray(0, length);
      this.#forget();
      return onPacket(packet);
    }
    if (bytes === packetBytesMin && this.#pieces?.takes(this.#partial) === true) {
      this.#forget();
      this.#pieceBytesLeft = length - packetBytesMin;
    }
    return true;
  }

  #forget(): void {
    this.#partial = nothingYet;
    this.#partialBytes = 0;
  }

  /** A packet of data has its room at once. Beyond that what has really come is doubled, so that a large length alone costs nothing. */
  #append(bytes: Buffer, lengthExpected: number): void {
    const end = this.#partialBytes + bytes.length;
    if (end > this.#partial.length) {
      const room = lengthExpected <= roomBytesAtOnce ? lengthExpected : Math.min(lengthExpected, end * 2);
      const grown = Buffer.allocUnsafeSlow(Math.max(end, room));
      this.#partial.copy(grown, 0, 0, this.#partialBytes);
      this.#partial = grown;
    }
    bytes.copy(this.#partial, this.#partialBytes);
    this.#partialBytes = end;
  }
}

function packetLength(buffer: Buffer, offset: number): number {
  const length = buffer.readUInt32BE(offset);
  if (length < packetBytesMin || length > packetBytesMax) throw new XdrError(`a packet of ${length} bytes`);
  return length;
}

/** What a stream needs to hear of its packets. */
export interface StreamSink {
  onData(data: Buffer): void;
  /** The daemon skips so many bytes, which are zero. */
  onHole(bytes: number): void;
  /** The daemon has no more data. */
  onEnd(): void;
  /** The daemon has answered our end. */
  onFinished(): void;
  onError(error: Error): void;
}

/** What a stream may do on its connection. */
export interface StreamPort {
  readonly call: string;
  send(data: Buffer, sent: (error?: Error | null) => void): void;
  /** Skips so many bytes, which shall be zero. */
  sendHole(bytes: number, sent: (error?: Error | null) => void): void;
  /** Says that all data is sent, or that all has been received. */
  finish(): void;
  /** Gives up; whatever still comes is dropped. */
  abort(): void;
  /** Stops or continues to read from the daemon: everything on this connection. Stops only once the call that opened the stream is answered. */
  pause(paused: boolean): void;
}

export interface OutgoingCall<Out> {
  readonly program: number;
  readonly procedure: number;
  readonly priority: Priority;
  /** Name of the call and of its object, for errors. */
  readonly label: string;
  readonly object: string | (() => string | undefined) | undefined;
  readonly encode: (writer: Writer) => void;
  readonly decode: (reader: Reader) => Out;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

interface Pending {
  readonly serial: number;
  readonly call: OutgoingCall<unknown>;
  readonly packet: Buffer;
  readonly sink: StreamSink | undefined;
  sent: boolean;
  /** Undefined once the caller has been told something: the reply is then dropped. */
  settle: { readonly resolve: (value: unknown) => void; readonly reject: (error: Error) => void } | undefined;
  /** On the clock of performance.now(). Infinity: no limit. */
  readonly expiresAtMs: number;
  onAbort: (() => void) | undefined;
}

interface Outgoing {
  readonly bytes: Buffer;
  readonly sent: ((error?: Error | null) => void) | undefined;
}

export interface RpcOptions {
  readonly inFlightMax: number;
  readonly queuedMax: number;
  /** Each packet is written when the one before it has left (transport.ts says why). */
  readonly packetsApart?: boolean;
  /** Reads the socket in place of its `data` events. */
  readonly reads?: SocketReads | undefined;
  /** An event: program and procedure say which. Throws XdrError when it cannot be read. */
  readonly onMessage: (program: number, procedure: number, reader: Reader) => void;
  readonly onClosed: (reason: CloseReason) => void;
}

export class Rpc {
  readonly #socket: Duplex;
  readonly #options: RpcOptions;
  readonly #reads: SocketReads | undefined;
  readonly #splitter: PacketSplitter;
  /** The stream of the payload that comes in pieces. */
  #piecesOf = 0;
  /** Sent and not answered, by serial. */
  readonly #inFlight = new Map<number, Pending>();
  #lowInFlight = 0;
  #abandoned = 0;
  /** Sets keep the order of arrival and give up a member at once. */
  readonly #queued: Readonly<Record<Priority, Set<Pending>>> = { high: new Set(), low: new Set() };
  readonly #streams = new Map<number, { readonly sink: StreamSink; readonly call: OutgoingCall<unknown> }>();
  readonly #streamsEnded = new Set<number>();
  readonly #pausing = new Set<number>();
  /** Packets that wait for the one before them, where they go apart. */
  readonly #waiting: Outgoing[] = [];
  #writing = false;
  #pongsWaiting = 0;
  #whenIdle: (() => void)[] = [];
  #serial = 0;
  /** A packet has left in this turn of the event loop; these leave together when it is over. */
  #gathering = false;
  #gathered: Buffer[] = [];
  /** One timer for the time limits of all calls, on the clock of performance.now(). It is not taken back when its call is answered. */
  #limitTimer: NodeJS.Timeout | undefined;
  #limitAtMs = Number.POSITIVE_INFINITY;
  #closeReason: CloseReason | undefined;
  #heard = true;
  #misses = 0;
  #keepalive: NodeJS.Timeout | undefined;

  constructor(socket: Duplex, options: RpcOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#reads = options.reads;
    this.#splitter = new PacketSplitter({ takes: (head) => this.#takesPieces(head), onPiece: (piece) => this.#onPiece(piece) });
    const onPacket = (packet: Buffer) => {
      this.#onPacket(packet);
      return this.#closeReason === undefined;
    };
    const onData = (chunk: Buffer) => this.#onData(chunk, onPacket);
    if (options.reads === undefined) socket.on('data', onData);
    else options.reads.onChunk = onData;
    socket.on('error', (cause: Error) => this.close({ kind: 'socketError', message: `the connection failed: ${cause.message}`, cause }));
    socket.on('close', () => this.close({ kind: 'closedByPeer', message: 'libvirtd closed the connection' }));
    socket.on('end', () => this.close({ kind: 'closedByPeer', message: 'libvirtd closed the connection' }));
    // Whoever made the socket may have paused it.
    socket.resume();
  }

  get closeReason(): CloseReason | undefined {
    return this.#closeReason;
  }

  get load(): { readonly inFlight: number; readonly abandoned: number; readonly queued: number } {
    return { inFlight: this.#inFlight.size, abandoned: this.#abandoned, queued: this.#queued.high.size + this.#queued.low.size };
  }

  call<Out>(call: OutgoingCall<Out>, sink?: (port: StreamPort) => StreamSink): Promise<Out> {
    return new Promise((resolve, reject) => {
      if (this.#closeReason !== undefined) return reject(new Disconnected(call.label, false, this.#closeReason));
      if (call.signal?.aborted === true) return reject(new CallAborted(call.label, false, 'aborted before it was sent', { cause: call.signal.reason }));
      const queue = this.#queued[call.priority];
      const mustWait = queue.size > 0 || !this.#hasPlace(call.priority);
      if (mustWait && queue.size >= this.#options.queuedMax) return reject(new CallRefused(call.label, false, `${queue.size} calls already wait for a place`));
      const serial = this.#serialNext();
      let packet: Buffer;
      try {
        packet = encodePacket({ program: call.program, procedure: call.procedure, type: messageType.call, serial, status: messageStatus.ok }, call.encode);
      } catch (cause) {
        if (!(cause instanceof XdrError)) throw cause;
        return reject(new TypeError(`${call.label}: ${cause.message}`, { cause }));
      }
      const pending: Pending = {
        serial,
        call,
        packet,
        sink: sink?.(this.#port(serial, call)),
        sent: false,
        // The decoder of the same call makes the value that resolve is given.
        settle: { resolve: resolve as (value: unknown) => void, reject },
        expiresAtMs: call.timeoutMs > 0 ? performance.now() + call.timeoutMs : Number.POSITIVE_INFINITY,
        onAbort: undefined,
      };
      if (pending.expiresAtMs < this.#limitAtMs) this.#limitAt(pending.expiresAtMs);
      if (call.signal !== undefined) {
        const { signal } = call;
        pending.onAbort = () => this.#giveUp(pending, new CallAborted(call.label, pending.sent, 'aborted', { cause: signal.reason }));
        signal.addEventListener('abort', pending.onAbort, { once: true });
      }
      if (mustWait) queue.add(pending);
      else this.#sendCall(pending);
    });
  }

  #limitAt(atMs: number): void {
    clearTimeout(this.#limitTimer);
    this.#limitAtMs = atMs;
    this.#limitTimer = setTimeout(() => this.#onLimit(), Math.min(Math.max(1, Math.ceil(atMs - performance.now())), timerMsMax));
  }

  #onLimit(): void {
    const now = performance.now();
    this.#limitAtMs = Number.POSITIVE_INFINITY;
    let next = Number.POSITIVE_INFINITY;
    for (const all of [this.#inFlight.values(), this.#queued.high, this.#queued.low]) {
      for (const pending of all) {
        if (pending.settle === undefined) continue;
        if (pending.expiresAtMs > now) {
          next = Math.min(next, pending.expiresAtMs);
          continue;
        }
        const { label, timeoutMs } = pending.call;
        const why = pending.sent ? `no answer within ${timeoutMs} ms` : `no place on the connection within ${timeoutMs} ms`;
        this.#giveUp(pending, new CallTimeout(label, pending.sent, why));
      }
    }
    if (next < this.#limitAtMs) this.#limitAt(next);
  }

  /** Answers of the daemon to pings keep the connection; without `missesMax` of them it is closed. */
  startKeepalive(intervalMs: number, missesMax: number): void {
    this.#keepalive = setInterval(() => {
      const heard = this.#heard;
      // Before anything is asked: the answer may come while it is sent.
      this.#heard = false;
      if (heard || this.#pausing.size > 0) {
        this.#misses = 0;
      } else {
        this.#misses += 1;
        if (this.#misses > missesMax) {
          this.close({ kind: 'keepaliveTimeout', message: `nothing was heard from libvirtd for ${(this.#misses * intervalMs) / 1000} s` });
          return;
        }
        this.#sendKeepalive(keepaliveProcedure.ping);
      }
    }, intervalMs);
    this.#keepalive.unref();
  }

  /** Resolves when no call waits for an answer that somebody wants, or the connection has ended. */
  idle(): Promise<void> {
    return new Promise((resolve) => {
      this.#whenIdle.push(resolve);
      this.#tellIdle();
    });
  }

  #tellIdle(): void {
    if (this.#whenIdle.length === 0) return;
    const { inFlight, abandoned, queued } = this.load;
    if (this.#closeReason === undefined && inFlight - abandoned + queued > 0) return;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** Ends everything: calls and streams fail with `reason`. A second call does nothing. */
  close(reason: CloseReason): void {
    if (this.#closeReason !== undefined) return;
    this.#closeReason = reason;
    clearInterval(this.#keepalive);
    clearTimeout(this.#limitTimer);
    this.#gathered = [];
    this.#socket.destroy();
    const pending = [...this.#inFlight.values(), ...this.#queued.high, ...this.#queued.low];
    this.#inFlight.clear();
    this.#queued.high.clear();
    this.#queued.low.clear();
    this.#pausing.clear();
    for (const one of pending) this.#settleWithError(one, new Disconnected(one.call.label, one.sent, reason));
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const { sink, call } of streams) sink.onError(new Disconnected(call.label, true, reason));
    for (const { sent } of this.#waiting.splice(0)) sent?.(new Disconnected('stream', false, reason));
    this.#tellIdle();
    this.#options.onClosed(reason);
  }

  #serialNext(): number {
    do this.#serial = this.#serial >= serialMax ? 1 : this.#serial + 1;
    while (this.#inFlight.has(this.#serial) || this.#streams.has(this.#serial));
    return this.#serial;
  }

  #hasPlace(priority: Priority): boolean {
    const { inFlightMax } = this.#options;
    return this.#inFlight.size < inFlightMax && (priority === 'high' || this.#lowInFlight < Math.max(1, inFlightMax - 1));
  }

  #sendQueued(): void {
    const { high, low } = this.#queued;
    while (this.#closeReason === undefined && (high.size > 0 || low.size > 0)) {
      const queue = high.size > 0 ? high : low;
      const [next] = queue;
      if (next === undefined || !this.#hasPlace(next.call.priority)) return;
      queue.delete(next);
      this.#sendCall(next);
    }
  }

  #sendCall(pending: Pending): void {
    this.#inFlight.set(pending.serial, pending);
    if (pending.call.priority === 'low') this.#lowInFlight += 1;
    pending.sent = true;
    // The daemon may answer in the same read in which it confirms, so the stream is known before the call leaves.
    if (pending.sink !== undefined) this.#streams.set(pending.serial, { sink: pending.sink, call: pending.call });
    this.#send(pending.packet);
  }

  /** The first packet of a turn of the event loop leaves at once, so that the daemon can begin; what follows in that turn leaves together. */
  #send(packet: Buffer, sent?: (error?: Error | null) => void): void {
    if (this.#options.packetsApart === true) {
      this.#waiting.push({ bytes: packet, sent });
      if (!this.#writing) this.#writeNext();
      return;
    }
    if (this.#gathering && sent === undefined && packet.length <= gatheredPacketBytesMax) {
      this.#gathered.push(packet);
      return;
    }
    // A call that is alone on the way has nothing behind it.
    if (!this.#gathering && this.#inFlight.size > 1) {
      this.#gathering = true;
      process.nextTick(() => {
        this.#gathering = false;
        this.#sendGathered();
      });
    }
    this.#sendGathered();
    this.#socket.write(packet, sent);
  }

  #sendGathered(): void {
    const packets = this.#gathered;
    if (packets.length === 0) return;
    this.#gathered = [];
    this.#socket.write(packets.length === 1 ? (packets[0] as Buffer) : Buffer.concat(packets));
  }

  #writeNext(): void {
    const next = this.#waiting.shift();
    this.#writing = next !== undefined;
    if (next === undefined) return;
    this.#socket.write(next.bytes, (error) => {
      next.sent?.(error);
      if (this.#closeReason === undefined) this.#writeNext();
    });
  }

  #sendKeepalive(procedure: number, sent?: () => void): void {
    this.#send(encodePacket({ program: programs.keepalive, procedure, type: messageType.message, serial: 0, status: messageStatus.ok }, () => {}), sent);
  }

  #answerPing(): void {
    // One that has not left yet answers this ping too.
    if (this.#pongsWaiting >= pongsWaitingMax) return;
    this.#pongsWaiting += 1;
    this.#sendKeepalive(keepaliveProcedure.pong, () => (this.#pongsWaiting -= 1));
  }

  /** The caller gets an error now; a call that was sent stays until its reply. */
  #giveUp(pending: Pending, error: Error): void {
    if (pending.settle === undefined) return;
    if (pending.sent) {
      this.#abandoned += 1;
      // It keeps no data of a stream that nobody gets.
      this.#streams.get(pending.serial)?.sink.onError(error);
    } else {
      this.#queued[pending.call.priority].delete(pending);
    }
    this.#settleWithError(pending, error);
  }

  #settleWithError(pending: Pending, error: Error): void {
    const { settle } = pending;
    this.#release(pending);
    settle?.reject(error);
    this.#tellIdle();
  }

  #release(pending: Pending): void {
    if (pending.onAbort !== undefined) pending.call.signal?.removeEventListener('abort', pending.onAbort);
    pending.settle = undefined;
  }

  #onData(chunk: Buffer, onPacket: (packet: Buffer) => boolean): void {
    if (this.#closeReason !== undefined) return;
    this.#heard = true;
    try {
      this.#splitter.push(chunk, onPacket);
    } catch (cause) {
      if (!(cause instanceof XdrError)) throw cause;
      this.close({ kind: 'protocolViolation', message: `libvirtd broke the protocol: ${cause.message}`, cause });
    }
  }

  /** Data of streams, that is. Their packets are the only ones of which a part can be used. */
  #takesPieces(head: Buffer): boolean {
    const reader = new Reader(head, 8, packetBytesMin);
    const version = reader.u32();
    reader.i32();
    const type = reader.i32();
    const serial = reader.u32();
    if (version !== protocolVersion || type !== messageType.stream || reader.i32() !== messageStatus.continue) return false;
    this.#streamOf(serial);
    this.#piecesOf = serial;
    return true;
  }

  #onPiece(piece: Buffer): boolean {
    // It may have ended since the packet began.
    const stream = this.#streams.get(this.#piecesOf);
    if (stream !== undefined) this.#onStreamData(stream.sink, piece);
    return this.#closeReason === undefined;
  }

  #onStreamData(sink: StreamSink, data: Buffer): void {
    sink.onData(this.#reads === undefined ? data : this.#reads.kept(data));
  }

  #onPacket(packet: Buffer): void {
    const reader = new Reader(packet, 4);
    const program = reader.u32();
    const version = reader.u32();
    const procedure = reader.i32();
    const type = reader.i32();
    const serial = reader.u32();
    const status = reader.i32();
    if (version !== protocolVersion) throw new XdrError(`a packet of version ${version}`);
    switch (type) {
      case messageType.reply:
        return this.#onReply({ program, procedure, type, serial, status }, reader);
      case messageType.stream:
      case messageType.streamHole:
        return this.#onStream({ program, procedure, type, serial, status }, reader, packet);
      case messageType.message:
        if (program === programs.keepalive) {
          if (procedure === keepaliveProcedure.ping) this.#answerPing();
          return;
        }
        if (program !== programs.remote && program !== programs.qemu) throw new XdrError(`a message of program ${program}`);
        return this.#options.onMessage(program, procedure, reader);
      default:
        throw new XdrError(`a packet of type ${type}`);
    }
  }

  #onReply(header: PacketHeader, reader: Reader): void {
    const pending = this.#inFlight.get(header.serial);
    if (pending === undefined) throw new XdrError(`a reply to call ${header.serial}, which waits for none`);
    const { call } = pending;
    if (header.program !== call.program || header.procedure !== call.procedure) {
      // Program and procedure are the daemon's echo of ours; only a lost thread of its makes them differ.
      throw new XdrError(`the reply to ${call.label} is of procedure ${header.procedure}`);
    }
    let value: unknown;
    let error: Error | undefined;
    if (header.status === messageStatus.ok) {
      value = call.decode(reader);
      reader.end();
    } else if (header.status === messageStatus.error) {
      error = toError(call, remoteError.read(reader));
    } else {
      throw new XdrError(`a reply of status ${header.status}`);
    }
    this.#inFlight.delete(header.serial);
    if (call.priority === 'low') this.#lowInFlight -= 1;
    const { settle } = pending;
    if (settle === undefined) {
      this.#abandoned -= 1;
      // Nobody has the stream that has now opened.
      if (pending.sink !== undefined && error === undefined) this.#abortStream(header.serial, call);
    } else {
      this.#release(pending);
      if (error === undefined) settle.resolve(value);
      else settle.reject(error);
    }
    if (error !== undefined && pending.sink !== undefined) this.#endStream(header.serial);
    this.#sendQueued();
    this.#tellIdle();
  }

  #onStream(header: PacketHeader, reader: Reader, packet: Buffer): void {
    const stream = this.#streamOf(header.serial);
    if (stream === undefined) return;
    if (header.type === messageType.streamHole) {
      const { length } = streamHole.read(reader);
      reader.end();
      if (header.status !== messageStatus.continue || length < 0 || !Number.isSafeInteger(length)) throw new XdrError(`a hole of ${length} bytes`);
      if (length > 0) stream.sink.onHole(length);
      return;
    }
    switch (header.status) {
      case messageStatus.continue:
        if (reader.bytesLeft === 0) stream.sink.onEnd();
        else this.#onStreamData(stream.sink, packet.subarray(packetBytesMin));
        return;
      case messageStatus.ok:
        this.#endStream(header.serial);
        stream.sink.onFinished();
        return;
      case messageStatus.error: {
        const error = toError(stream.call, remoteError.read(reader));
        this.#endStream(header.serial);
        stream.sink.onError(error);
        return;
      }
      default:
        throw new XdrError(`a stream packet of status ${header.status}`);
    }
  }

  /** Undefined when it has ended. Throws XdrError when there was none. */
  #streamOf(serial: number): { readonly sink: StreamSink; readonly call: OutgoingCall<unknown> } | undefined {
    const stream = this.#streams.get(serial);
    if (stream === undefined && !this.#streamsEnded.has(serial)) throw new XdrError(`data of stream ${serial}, which is not open`);
    return stream;
  }

  #endStream(serial: number): void {
    this.#streams.delete(serial);
    if (this.#streams.size === 0) this.#reads?.rest();
    this.#pause(serial, false);
    this.#streamsEnded.add(serial);
    if (this.#streamsEnded.size > endedStreamsKept) {
      const [oldest] = this.#streamsEnded;
      // The set has just been seen to have members.
      this.#streamsEnded.delete(oldest as number);
    }
  }

  #abortStream(serial: number, call: OutgoingCall<unknown>): void {
    if (!this.#streams.has(serial)) return;
    this.#endStream(serial);
    this.#sendStream(serial, call, messageStatus.error, undefined);
  }

  #sendStream(serial: number, call: OutgoingCall<unknown>, status: number, data: Buffer | undefined, sent?: (error?: Error | null) => void): void {
    if (this.#closeReason !== undefined) {
      sent?.(new Disconnected(call.label, false, this.#closeReason));
      return;
    }
    const packet = encodePacket({ program: call.program, procedure: call.procedure, type: messageType.stream, serial, status }, () => {});
    if (data === undefined) {
      this.#send(packet, sent);
      return;
    }
    // The payload is not copied into the packet: it is written behind its header.
    packet.writeUInt32BE(packet.length + data.length, 0);
    this.#sendGathered();
    this.#socket.cork();
    this.#send(packet, nothing);
    this.#send(data, sent);
    this.#socket.uncork();
  }

  #port(serial: number, call: OutgoingCall<unknown>): StreamPort {
    return {
      call: call.label,
      send: (data, sent) => this.#sendStream(serial, call, messageStatus.continue, data, sent),
      sendHole: (bytes, sent) => {
        if (this.#closeReason !== undefined) return sent(new Disconnected(call.label, false, this.#closeReason));
        const header = { program: call.program, procedure: call.procedure, type: messageType.streamHole, serial, status: messageStatus.continue };
        this.#send(encodePacket(header, (writer) => streamHole.write(writer, { length: bytes, flags: 0 })), sent);
      },
      finish: () => this.#sendStream(serial, call, messageStatus.ok, undefined),
      abort: () => {
        // Before the reply there is nothing to abort in the daemon yet; #onReply does it then.
        if (!this.#inFlight.has(serial)) this.#abortStream(serial, call);
      },
      // The daemon may send data before it answers the call that opened the stream: who stopped reading then would never read the answer.
      pause: (paused) => {
        if (!paused || (this.#streams.has(serial) && !this.#inFlight.has(serial))) this.#pause(serial, paused);
      },
    };
  }

  #pause(serial: number, paused: boolean): void {
    if (this.#closeReason !== undefined || this.#pausing.has(serial) === paused) return;
    if (paused) this.#pausing.add(serial);
    else this.#pausing.delete(serial);
    if (paused) this.#socket.pause();
    else if (this.#pausing.size === 0) this.#socket.resume();
  }
}

/** The daemon's error, as ours. */
export function toError(call: { readonly label: string; readonly object: string | (() => string | undefined) | undefined }, error: RemoteError): LibvirtError {
  const parts = {
    code: error.code,
    domain: error.domain,
    level: errorLevel(error.level),
    reason: error.message ?? 'libvirtd gave no reason',
    call: call.label,
    object: typeof call.object === 'function' ? call.object() : call.object,
  };
  const absent = error.code === errorCodes.noSupport || (error.code === errorCodes.rpc && /unknown (procedure|program)/i.test(parts.reason));
  return absent ? new UnsupportedError(parts) : new LibvirtError(parts);
}
