/*
 * Packets that a broken or hostile peer might send, made from a seed, for every decoder there is.
 *
 * A decoder is asked what it would like to read: it is run on a reader that makes every word up and
 * writes it down. What it read that way is a packet that it understands, however its layout is. From such
 * packets come the bad ones: words that mean much are put anywhere, bytes are changed, cut off, doubled.
 *
 * Each goes through the splitter in pieces and then to its decoder, which either reads it or says
 * XdrError. A packet that was left as it was must be read. Some go, with a header that may be wrong as
 * well, through the whole of Rpc with calls and a stream under way, which either goes on or ends with a
 * reason and fails them all.
 */
import { Duplex } from 'node:stream';
import { setImmediate as immediate } from 'node:timers/promises';
import { remoteError } from './layouts.ts';
import { procedures, programs, sessionProcedures } from './procedures.ts';
import type { Procedure } from './procedures.ts';
import { domainEvents, monitorEvents, networkEvents, nodeDeviceEvents, secretEvents, storagePoolEvents } from './events.ts';
import { encodePacket, messageStatus, messageType, packetBytesMin, PacketSplitter, Rpc } from './rpc.ts';
import { LibvirtStream } from './stream.ts';
import { Reader, Writer, XdrError } from './xdr.ts';
import type { AnyCodec } from './xdr.ts';

/** A number below `below`. */
export type Draw = (below: number) => number;

/** The same seed gives the same numbers. */
export function drawFrom(seed: number): Draw {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b_79f5) >>> 0;
    let word = Math.imul(state ^ (state >>> 15), 1 | state);
    word = (word + Math.imul(word ^ (word >>> 7), 61 | word)) ^ word;
    return ((word ^ (word >>> 14)) >>> 0) % below;
  };
}

const pick = <T>(draw: Draw, values: readonly T[]): T => values[draw(values.length)] as T;

export interface Decoder {
  readonly name: string;
  readonly codec: AnyCodec;
}

/** All that reads what a peer sends: results, events and errors, and arguments, which a daemon of ours reads. */
export function decoders(): readonly Decoder[] {
  const ofProcedures = Object.entries({ ...procedures, ...sessionProcedures } as Readonly<Record<string, Procedure>>).flatMap(([name, procedure]) => [
    { name: `arguments of ${name}`, codec: procedure.args },
    { name: `result of ${name}`, codec: procedure.result },
  ]);
  const ofEvents = Object.entries({ domainEvents, monitorEvents, networkEvents, nodeDeviceEvents, secretEvents, storagePoolEvents }).flatMap(([family, events]) =>
    Object.entries(events).map(([kind, event]) => ({ name: `${family} ${kind}`, codec: (event as { readonly message: AnyCodec }).message })),
  );
  return [...ofProcedures, ...ofEvents, { name: 'error', codec: remoteError as AnyCodec }];
}

const wordsOfWeight = [0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 36, 255, 2_048, 16_384, 16_385, 65_536, 4_194_304, 4_194_305, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_ffff];
const fabricatedBytesMax = 8_192;

/** Makes up what it is asked for, and writes it down. */
class Fabricator extends Reader {
  readonly #draw: Draw;
  readonly #texts: readonly string[];
  readonly written = new Writer(1_048_576);

  constructor(draw: Draw, texts: readonly string[]) {
    super(Buffer.alloc(0));
    this.#draw = draw;
    this.#texts = texts;
  }

  override get bytesLeft(): number {
    return Math.max(0, fabricatedBytesMax - this.written.bytes);
  }

  // Small ones mostly: kinds, truths and enumerations are among them.
  #small(): number {
    const kind = this.#draw(16);
    if (kind === 0) return this.#draw(0x7fff_ffff);
    return this.#draw(kind < 6 ? 2 : 8);
  }

  override i32(): number {
    const value = this.#draw(16) === 0 ? -1 : this.#small();
    this.written.i32(value);
    return value;
  }

  override u32(): number {
    const value = this.#small();
    this.written.u32(value);
    return value;
  }

  override i64(): bigint {
    const value = BigInt.asIntN(64, this.u64Drawn());
    this.written.i64(value);
    return value;
  }

  override u64(): bigint {
    const value = this.u64Drawn();
    this.written.u64(value);
    return value;
  }

  private u64Drawn(): bigint {
    return this.#draw(2) === 0 ? BigInt(this.#draw(1_000)) : BigInt(this.#draw(0xffff_ffff)) * BigInt(this.#draw(0xffff_ffff));
  }

  override u64Number(): number {
    return Number(this.u64());
  }

  override f64(): number {
    const value = pick(this.#draw, [0, -0.5, 1e300, Number.NaN, Number.POSITIVE_INFINITY, this.#draw(1_000) / 7]);
    this.written.f64(value);
    return value;
  }

  override fixedBytes(length: number): Buffer {
    if (length > fabricatedBytesMax) throw new XdrError('too much to make up');
    const value = Buffer.from(Array.from({ length }, () => this.#draw(256)));
    this.written.fixedBytes(value);
    return value;
  }

  override length(max: number): number {
    const value = Math.min(max, this.#draw(4));
    this.written.u32(value);
    return value;
  }

  override string(max: number): string {
    const text = pick(this.#draw, this.#texts);
    const value = Buffer.byteLength(text) > max ? '' : text;
    this.written.string(value, max);
    return value;
  }

  override end(): void {}
}

/** Bytes that the decoder understands; undefined when so many attempts made none. */
export function fabricate(codec: AnyCodec, draw: Draw, texts: readonly string[]): Buffer | undefined {
  for (let attempt = 0; attempt < 500; attempt += 1) {
    const reader = new Fabricator(draw, texts);
    try {
      codec.read(reader);
      return reader.written.take();
    } catch (error) {
      // It was given a kind that there is not.
      if (!(error instanceof XdrError)) throw error;
    }
  }
  return undefined;
}

/** One of the many ways in which bytes can be wrong. Nothing before `from` is touched. */
export function mutated(bytes: Buffer, draw: Draw, from: number): Buffer {
  let wrong = Buffer.from(bytes);
  for (let change = draw(4); change >= 0 && wrong.length > from; change -= 1) {
    const at = from + draw(wrong.length - from);
    switch (draw(6)) {
      case 0:
        wrong[at] = draw(256);
        break;
      case 1:
      case 2:
        if (wrong.length >= from + 4) wrong.writeUInt32BE(pick(draw, wordsOfWeight), Math.min(from + ((at - from) & ~3), wrong.length - 4));
        break;
      case 3:
        wrong = wrong.subarray(0, at);
        break;
      case 4:
        wrong = Buffer.concat([wrong, wrong.subarray(at, at + 64)]);
        break;
      default:
        wrong = Buffer.concat([wrong.subarray(0, at), wrong.subarray(Math.min(wrong.length, at + 4))]);
    }
  }
  return wrong;
}

export interface FuzzResult {
  /** Packets that were understood, and that were refused. */
  readonly read: number;
  readonly refused: number;
  /** Of those through the whole of Rpc: connections that ended, for what they were sent. */
  readonly ended: number;
  readonly survived: number;
  /** Decoders for which no packet could be made up. */
  readonly unfed: readonly string[];
}

const rpcEvery = 16;
/** So many packets of each decoder are made up at first; most others come of them. */
const samplesOfEach = 4;
const freshEvery = 4;

/** Throws, with the seed and the round, when something other than XdrError comes of a packet. `texts` are what strings are made of. */
export async function fuzz(options: { readonly seed: number; readonly packets: number; readonly texts: readonly string[]; readonly onRound?: (round: number) => void }): Promise<FuzzResult> {
  const draw = drawFrom(options.seed);
  const all = decoders();
  const fed: { readonly decoder: Decoder; readonly samples: readonly Buffer[] }[] = [];
  const unfed: string[] = [];
  for (const decoder of all) {
    const samples = Array.from({ length: samplesOfEach }, () => fabricate(decoder.codec, draw, options.texts)).filter((sample) => sample !== undefined);
    if (samples.length > 0) fed.push({ decoder, samples });
    else unfed.push(decoder.name);
  }
  const splitter = new PacketSplitter();
  const result = { read: 0, refused: 0, ended: 0, survived: 0, unfed };
  const failures: Failures = { calls: 0, settled: 0 };
  for (let round = 0; round < options.packets; round += 1) {
    // What was ended is let go of, and has told its callers, only in a later turn.
    if (round % 512 === 0) await immediate();
    options.onRound?.(round);
    const { decoder, samples } = pick(draw, fed);
    let packet: Buffer | undefined;
    try {
      const sample = (draw(freshEvery) === 0 ? fabricate(decoder.codec, draw, options.texts) : undefined) ?? pick(draw, samples);
      const whole = encodePacket({ program: 1, procedure: 1, type: messageType.reply, serial: round % 1_000, status: 0 }, (writer) => writeBytes(writer, sample));
      const untouched = draw(4) === 0;
      packet = untouched ? whole : mutated(whole, draw, packetBytesMin);
      packet.writeUInt32BE(packet.length, 0);
      if (round % rpcEvery === 0) throughRpc(untouched ? packet : mutated(packet, draw, 4), draw, result, failures);
      if (decodes(splitter, packet, decoder, draw)) result.read += 1;
      else if (untouched) throw new Error(`the ${decoder.name} does not read what it understood`);
      else result.refused += 1;
    } catch (cause) {
      throw new Error(`seed ${options.seed}, round ${round}, the ${decoder.name}: ${packet?.toString('hex').slice(0, 2_000) ?? 'made up'}`, { cause });
    }
  }
  await immediate();
  if (failures.settled !== failures.calls) throw new Error(`seed ${options.seed}: ${failures.calls - failures.settled} calls never heard of their end`);
  return result;
}

/** Calls that were made, and that have ended somehow. */
interface Failures {
  calls: number;
  settled: number;
}

function decodes(splitter: PacketSplitter, packet: Buffer, decoder: Decoder, draw: Draw): boolean {
  const out: Buffer[] = [];
  for (let at = 0; at < packet.length; ) {
    const end = Math.min(packet.length, at + 1 + draw(packet.length));
    splitter.push(packet.subarray(at, end), (one) => out.push(one) > 0);
    at = end;
  }
  const [one] = out;
  if (out.length !== 1 || one?.equals(packet) !== true) throw new Error('the splitter did not give the packet back');
  try {
    const reader = new Reader(one, packetBytesMin);
    decoder.codec.read(reader);
    reader.end();
    return true;
  } catch (error) {
    if (error instanceof XdrError) return false;
    throw error;
  }
}

/** A connection with two calls and a stream under way gets the packet. */
function throughRpc(packet: Buffer, draw: Draw, result: { ended: number; survived: number }, failures: Failures): void {
  const socket = new Duplex({ read: () => {}, write: (_chunk, _encoding, sent) => sent() });
  let told = 0;
  const rpc = new Rpc(socket, { inFlightMax: 8, queuedMax: 8, onMessage: (_program, _procedure, reader) => void reader.string(100), onClosed: () => (told += 1) });
  const common = { program: programs.remote, priority: 'high', label: 'fuzz', object: undefined, encode: () => {}, timeoutMs: 0, signal: undefined } as const;
  const { connectListAllDomains } = procedures;
  const calls = [
    rpc.call({ ...common, procedure: connectListAllDomains.number, decode: (reader) => connectListAllDomains.result.read(reader) }),
    rpc.call({ ...common, procedure: 201, decode: () => undefined }, (port) => new LibvirtStream(port, 'down', true)),
  ];
  failures.calls += calls.length;
  for (const call of calls) {
    call.then(
      () => (failures.settled += 1),
      () => (failures.settled += 1),
    );
  }
  // A header that may name one of them, and that may not.
  const half = Buffer.from(packet);
  if (half.length >= packetBytesMin && draw(4) !== 0) {
    half.writeUInt32BE(half.length, 0);
    half.writeUInt32BE(pick(draw, [programs.remote, programs.remote, programs.keepalive, programs.qemu, 7]), 4);
    half.writeUInt32BE(pick(draw, [1, 1, 1, 2]), 8);
    half.writeInt32BE(pick(draw, [connectListAllDomains.number, 201, 1, 2, 318, 362]), 12);
    half.writeInt32BE(pick(draw, Object.values(messageType)), 16);
    half.writeUInt32BE(draw(4), 20);
    half.writeInt32BE(pick(draw, [...Object.values(messageStatus), 9]), 24);
  }
  socket.emit('data', half);
  if (rpc.closeReason === undefined) {
    result.survived += 1;
    rpc.close({ kind: 'closedByCaller', message: 'the round is over' });
  } else {
    if (rpc.closeReason.kind !== 'protocolViolation') throw new Error(`the connection ended because: ${rpc.closeReason.message}`);
    result.ended += 1;
  }
  if (told !== 1 || rpc.load.inFlight + rpc.load.queued !== 0) throw new Error('something is left of the connection');
}

function writeBytes(writer: Writer, bytes: Buffer): void {
  // Packets are of whole words.
  for (let at = 0; at < bytes.length; at += 4) writer.u32(bytes.readUInt32BE(at));
}
