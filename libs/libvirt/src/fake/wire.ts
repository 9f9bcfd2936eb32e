/*
 * One client of the fake daemon: the wire protocol from the other side. The table of procedures says how
 * arguments are read and results written, so nothing here knows a layout.
 *
 * As libvirtd does it:
 * - A client with `max_client_requests` calls unanswered is not read any further, keepalive included.
 * - Replies go out as they are ready, in any order. What a call causes is told before its reply.
 * - Pings are sent only to who asked for the feature, and a client that answers none is dropped.
 *
 * What a client sends is not trusted: a packet that breaks the rules ends its connection and no other;
 * what waits to be written to a client that does not read is bounded.
 */
import type { Duplex } from 'node:stream';
import { eventKinds } from '../events.ts';
import { remoteError } from '../layouts.ts';
import { procedures, programs, sessionProcedures } from '../procedures.ts';
import type { Procedure } from '../procedures.ts';
import { encodePacket, messageStatus, messageType, PacketSplitter, streamPayloadBytesMax } from '../rpc.ts';
import { i64Number, Reader, struct, u32, XdrError } from '../xdr.ts';
import type { Writer } from '../xdr.ts';
import type { Clock } from './clock.ts';
import type { Emitted } from './node.ts';
import { internal, Refusal, rpcRefused, speakers } from './refusal.ts';

const headerBytes = 24;
/** As libvirtd's own for one client. */
const outgoingBytesMax = 134_217_728;
const keepaliveProcedure = { ping: 1, pong: 2 } as const;
/** Numbers that libvirtd 9.0.0 has, in our table or not. */
const knownNumberMax = { remote: 443, qemu: 7 } as const;
const callbacksMax = 1_024;
const streamsMax = 64;

export interface NamedProcedure {
  readonly name: string;
  readonly procedure: Procedure;
}

const byNumber: Readonly<Record<'remote' | 'qemu', Map<number, NamedProcedure>>> = { remote: new Map(), qemu: new Map() };
for (const [name, procedure] of Object.entries({ ...sessionProcedures, ...procedures }) as [string, Procedure][]) {
  // The first name of a number is the one: some calls have an older twin without flags.
  if (!byNumber[procedure.program].has(procedure.number)) byNumber[procedure.program].set(procedure.number, { name, procedure });
}

/** What a stream's maker hears of its client. */
export interface StreamBehaviour {
  onData?(data: Buffer): void;
  onHole?(bytes: number): void;
  /** The client has sent all, or wants no more. Throws to fail the stream. */
  onFinish?(): void;
  onAbort?(): void;
  /** The reply has left. `port` ends with the stream. */
  onOpen?(port: ServerStream): void;
}

const streamHole = struct({ length: i64Number, flags: u32 });

/** A stream from the daemon's side. */
export class ServerStream {
  readonly #session: WireSession;
  readonly #header: { readonly program: number; readonly procedure: number; readonly serial: number };
  over = false;

  constructor(session: WireSession, header: { readonly program: number; readonly procedure: number; readonly serial: number }) {
    this.#session = session;
    this.#header = header;
  }
  /** Resolves when the client takes more. */
  async send(data: Buffer): Promise<void> {
    for (let offset = 0; offset < data.length && !this.over; offset += streamPayloadBytesMax) {
      const part = data.subarray(offset, offset + streamPayloadBytesMax);
      this.#packet(messageType.stream, messageStatus.continue, (writer) => writer.fixedBytes(part), part.length);
      await this.#session.drained();
    }
  }
  sendHole(bytes: number): void {
    if (!this.over) this.#packet(messageType.streamHole, messageStatus.continue, (writer) => streamHole.write(writer, { length: bytes, flags: 0 }));
  }
  /** There is no more. */
  sendEnd(): void {
    if (!this.over) this.#packet(messageType.stream, messageStatus.continue, () => {});
  }
  fail(error: unknown): void {
    if (this.over) return;
    this.over = true;
    this.#session.endStream(this.#header.serial);
    const packet = { ...this.#header, type: messageType.stream, status: messageStatus.error };
    this.#session.write(encodePacket(packet, (writer) => remoteError.write(writer, errorOf(error))));
  }
  finished(): void {
    if (this.over) return;
    this.over = true;
    this.#session.endStream(this.#header.serial);
    this.#packet(messageType.stream, messageStatus.ok, () => {});
  }
  // Stream data is not padded to four bytes, as everything else is.
  #packet(type: number, status: number, encode: Parameters<typeof encodePacket>[1], dataBytes?: number): void {
    const whole = encodePacket({ ...this.#header, type, status }, encode);
    if (dataBytes === undefined) return this.#session.write(whole);
    const packet = whole.subarray(0, 4 + headerBytes + dataBytes);
    packet.writeUInt32BE(packet.length, 0);
    this.#session.write(packet);
  }
}

export interface Registration {
  readonly family: Emitted['family'];
  readonly kindId: number;
  readonly subject: string | undefined;
}

/** The arguments of a call: as its procedure reads them, and as they came. */
export interface Given {
  readonly args: unknown;
  /** Bits of its flags that have no name. */
  readonly unknownFlags: number;
  readonly raw: () => Reader;
}

/** What the daemon gives its sessions. */
export interface Served {
  readonly clock: Clock;
  readonly requestsMax: number;
  readonly keepaliveMs: number;
  readonly keepaliveMisses: number;
  /** Answers a call, now or later. A refusal is thrown. */
  answer(session: WireSession, call: NamedProcedure, given: Given): unknown;
  closed(session: WireSession): void;
}

function errorOf(error: unknown): Parameters<typeof remoteError.write>[1] {
  const refusal = error instanceof Refusal ? error : internal(error instanceof Error ? error.message : String(error));
  return { code: refusal.code, domain: speakers[refusal.speaker], message: refusal.message, level: 2, number1: -1, number2: -1, text1: '%s', text2: refusal.message, object: undefined, text3: undefined, network: undefined };
}

interface Packet {
  readonly buffer: Buffer;
  readonly program: number;
  readonly version: number;
  readonly procedure: number;
  readonly type: number;
  readonly serial: number;
  readonly status: number;
}

export class WireSession {
  readonly #duplex: Duplex;
  readonly #served: Served;
  readonly #splitter = new PacketSplitter();
  #packets: Packet[] = [];
  #inFlight = 0;
  #processing = false;
  readonly #streams = new Map<number, { readonly port: ServerStream; readonly behaviour: StreamBehaviour }>();
  readonly registrations = new Map<number, Registration>();
  /** UUIDs of domains that end with this client. */
  readonly autodestroy = new Set<string>();
  #callbackNext = 0;
  #waitingForDrain: (() => void)[] = [];
  #keepalive: (() => void) | undefined;
  #heard = true;
  #misses = 0;
  /** The driver, once it is open. */
  opened: string | undefined;
  readOnly = false;
  closed = false;

  constructor(duplex: Duplex, served: Served) {
    this.#duplex = duplex;
    this.#served = served;
    duplex.on('data', (chunk: Buffer) => this.#onData(chunk));
    duplex.on('error', () => this.close());
    duplex.on('end', () => this.close());
    duplex.on('close', () => this.close());
    duplex.on('drain', () => this.#tellDrained());
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.#keepalive?.();
    this.#packets = [];
    for (const { port, behaviour } of this.#streams.values()) {
      port.over = true;
      behaviour.onAbort?.();
    }
    this.#streams.clear();
    this.registrations.clear();
    this.#duplex.destroy();
    this.#tellDrained();
    this.#served.closed(this);
  }

  register(registration: Registration): number {
    if (this.registrations.size >= callbacksMax) throw internal('too many event callbacks', 'rpc');
    const id = this.#callbackNext;
    this.#callbackNext += 1;
    this.registrations.set(id, registration);
    return id;
  }

  /** `packet` is the event with a callback id of zero. */
  tell({ family, entry, subject }: Emitted, packet: () => Buffer): void {
    for (const [id, registration] of this.registrations) {
      if (registration.family !== family || registration.kindId !== entry.id) continue;
      if (registration.subject !== undefined && registration.subject !== subject) continue;
      const own = Buffer.from(packet());
      // Every event begins with the id of its callback.
      own.writeInt32BE(id, 4 + headerBytes);
      this.write(own);
    }
  }

  write(packet: Buffer): void {
    if (this.closed) return;
    this.#duplex.write(packet);
    if (this.#duplex.writableLength > outgoingBytesMax) this.close();
  }
  drained(): Promise<void> | undefined {
    if (this.closed || !this.#duplex.writableNeedDrain) return undefined;
    return new Promise((resolve) => this.#waitingForDrain.push(resolve));
  }
  #tellDrained(): void {
    for (const resolve of this.#waitingForDrain.splice(0)) resolve();
  }
  endStream(serial: number): void {
    this.#streams.delete(serial);
  }

  /** From the question on, the client is asked whether it lives. */
  startKeepalive(): void {
    if (this.#keepalive !== undefined || this.#served.keepaliveMs <= 0) return;
    const again = () => {
      if (this.closed) return;
      if (this.#heard) this.#misses = 0;
      else {
        this.#misses += 1;
        if (this.#misses > this.#served.keepaliveMisses) return this.close();
      }
      if (!this.#heard || this.#misses === 0) this.write(encodePacket({ program: programs.keepalive, procedure: keepaliveProcedure.ping, type: messageType.message, serial: 0, status: messageStatus.ok }, () => {}));
      this.#heard = false;
      this.#keepalive = this.#served.clock.after(this.#served.keepaliveMs, again);
    };
    this.#keepalive = this.#served.clock.after(this.#served.keepaliveMs, again);
  }

  #onData(chunk: Buffer): void {
    if (this.closed) return;
    this.#heard = true;
    try {
      this.#splitter.push(chunk, (buffer) => {
        const header = new Reader(buffer, 4);
        this.#packets.push({ buffer, program: header.u32(), version: header.u32(), procedure: header.i32(), type: header.i32(), serial: header.u32(), status: header.i32() });
        return true;
      });
    } catch (error) {
      if (!(error instanceof XdrError)) throw error;
      return this.close();
    }
    this.#process();
  }

  #process(): void {
    if (this.#processing) return;
    this.#processing = true;
    try {
      let done = 0;
      while (!this.closed && done < this.#packets.length && this.#inFlight < this.#served.requestsMax) {
        this.#onPacket(this.#packets[done] as Packet);
        done += 1;
      }
      this.#packets = this.closed ? [] : this.#packets.slice(done);
    } finally {
      this.#processing = false;
    }
    if (this.closed) return;
    if (this.#packets.length > 0 || this.#inFlight >= this.#served.requestsMax) this.#duplex.pause();
    else this.#duplex.resume();
  }

  #onPacket(packet: Packet): void {
    switch (packet.type) {
      case messageType.call:
        return this.#onCall(packet);
      case messageType.stream:
      case messageType.streamHole:
        return this.#onStream(packet);
      case messageType.message:
        if (packet.program === programs.keepalive) {
          if (packet.procedure === keepaliveProcedure.ping) this.write(encodePacket({ program: programs.keepalive, procedure: keepaliveProcedure.pong, type: messageType.message, serial: packet.serial, status: messageStatus.ok }, () => {}));
          return;
        }
        return this.close();
      default:
        // No file descriptor can come this way, and nothing else is a client's to say.
        this.#refuse(packet, rpcRefused(`Unexpected message type ${packet.type}`));
        return this.close();
    }
  }

  #refuse(packet: Packet, error: unknown): void {
    const { program, procedure, serial } = packet;
    this.write(encodePacket({ program, procedure, type: messageType.reply, serial, status: messageStatus.error }, (writer) => remoteError.write(writer, errorOf(error))));
  }

  #onCall(packet: Packet): void {
    const program = packet.program === programs.remote ? ('remote' as const) : packet.program === programs.qemu ? ('qemu' as const) : undefined;
    if (program === undefined || packet.version !== 1) return this.#refuse(packet, rpcRefused(`Cannot find program ${packet.program} version ${packet.version}`));
    if (packet.status !== messageStatus.ok) return this.#refuse(packet, rpcRefused(`Unexpected message status ${packet.status}`));
    const call = byNumber[program].get(packet.procedure);
    if (call === undefined) {
      const known = packet.procedure >= 1 && packet.procedure <= knownNumberMax[program];
      return this.#refuse(packet, known ? new Refusal(3, 'none', `this function is not supported by the connection driver: procedure ${packet.procedure}`) : rpcRefused(`unknown procedure: ${packet.procedure}`));
    }
    let given: Given;
    const raw = () => new Reader(packet.buffer, 4 + headerBytes);
    try {
      const reader = raw();
      given = { args: call.procedure.args.read(reader), unknownFlags: reader.unknownFlags, raw };
    } catch (error) {
      if (!(error instanceof XdrError)) throw error;
      return this.#refuse(packet, rpcRefused('Unable to decode message payload'));
    }
    let answer: unknown;
    try {
      answer = this.#served.answer(this, call, given);
    } catch (error) {
      return this.#refuse(packet, error);
    }
    if (answer instanceof Promise) {
      this.#inFlight += 1;
      const settled = () => {
        this.#inFlight -= 1;
        if (!this.closed) this.#process();
      };
      answer.then(
        (value: unknown) => {
          this.#reply(packet, call, value);
          settled();
        },
        (error: unknown) => {
          this.#refuse(packet, error);
          settled();
        },
      );
      return;
    }
    this.#reply(packet, call, answer);
  }

  #reply(packet: Packet, { procedure }: NamedProcedure, answer: unknown): void {
    if (this.closed) return;
    const { program, serial } = packet;
    const behaviour = answer instanceof OpenStream ? answer.behaviour : undefined;
    if (behaviour !== undefined && this.#streams.size >= streamsMax) return this.#refuse(packet, internal('too many streams', 'streams'));
    const value = answer instanceof OpenStream ? answer.answer : answer;
    const encode = (writer: Writer) => (answer instanceof WireAnswer ? answer.write(writer) : procedure.result.write(writer, value));
    try {
      this.write(encodePacket({ program, procedure: packet.procedure, type: messageType.reply, serial, status: messageStatus.ok }, encode));
    } catch (error) {
      if (!(error instanceof XdrError)) throw error;
      return this.#refuse(packet, internal(`the answer does not fit: ${error.message}`, 'rpc'));
    }
    if (behaviour === undefined) return;
    const port = new ServerStream(this, { program, procedure: packet.procedure, serial });
    this.#streams.set(serial, { port, behaviour });
    behaviour.onOpen?.(port);
  }

  #onStream(packet: Packet): void {
    const stream = this.#streams.get(packet.serial);
    // One that has ended may still be spoken of.
    if (stream === undefined) return;
    const { port, behaviour } = stream;
    try {
      if (packet.type === messageType.streamHole) return behaviour.onHole?.(streamHole.read(new Reader(packet.buffer, 4 + headerBytes)).length);
      switch (packet.status) {
        case messageStatus.continue:
          return behaviour.onData?.(packet.buffer.subarray(4 + headerBytes));
        case messageStatus.ok:
          behaviour.onFinish?.();
          return port.finished();
        default:
          port.over = true;
          this.endStream(packet.serial);
          return behaviour.onAbort?.();
      }
    } catch (error) {
      if (error instanceof XdrError) return this.close();
      port.fail(error);
      behaviour.onAbort?.();
    }
  }
}

/** The answer of a procedure that opens a stream. */
export class OpenStream {
  readonly behaviour: StreamBehaviour;
  readonly answer: unknown;
  constructor(behaviour: StreamBehaviour, answer?: unknown) {
    this.behaviour = behaviour;
    this.answer = answer;
  }
}

/** An answer that the table's own layout cannot write, because a client of ours never sees it so. */
export class WireAnswer {
  readonly write: (writer: Writer) => void;
  constructor(write: (writer: Writer) => void) {
    this.write = write;
  }
}

/** Whether a client may ask for the kind at all. */
export const hasEvent = (family: Emitted['family'], id: number): boolean => eventKinds(family).some((kind) => kind.id === id);
