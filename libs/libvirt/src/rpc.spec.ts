import { Duplex, duplexPair } from 'node:stream';
import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { CallAborted, CallRefused, CallTimeout, Disconnected, isNoDomain, LibvirtError, UnsupportedError } from './errors.ts';
import type { CloseReason } from './errors.ts';
import { remoteError } from './layouts.ts';
import { programs } from './procedures.ts';
import type { Priority } from './procedures.ts';
import { encodePacket, messageStatus, messageType, packetBytesMax, PacketSplitter, Rpc } from './rpc.ts';
import type { PacketHeader } from './rpc.ts';
import { LibvirtStream } from './stream.ts';
import { i32, i64Number, u32, XdrError } from './xdr.ts';
import type { Reader, Writer } from './xdr.ts';

const nothing = () => {};

interface Seen extends PacketHeader {
  readonly payload: Buffer;
}

/** The daemon's side, of which each test says what it does. */
class Peer {
  readonly seen: Seen[] = [];
  readonly #splitter = new PacketSplitter();
  onPacket: (packet: Seen) => void = nothing;

  constructor(readonly socket: Duplex) {
    socket.on('error', nothing);
    socket.on('data', (chunk: Buffer) =>
      this.#splitter.push(chunk, (packet) => {
        const [, program = 0, , procedure = 0, type = 0, serial = 0, status = 0] = Array.from({ length: 7 }, (_, index) => packet.readUInt32BE(index * 4));
        const one = { program, procedure, type, serial, status, payload: packet.subarray(28) };
        this.seen.push(one);
        this.onPacket(one);
        return true;
      }),
    );
  }

  send(header: Partial<PacketHeader>, encode: (writer: Writer) => void = nothing): void {
    this.socket.write(encodePacket({ program: programs.remote, procedure: 60, type: messageType.reply, serial: 1, status: messageStatus.ok, ...header }, encode));
  }

  reply(packet: Seen, encode: (writer: Writer) => void = nothing): void {
    this.send({ ...packet, type: messageType.reply }, encode);
  }

  fail(packet: Seen, code: number, message: string, type: number = messageType.reply): void {
    this.send({ ...packet, type, status: messageStatus.error }, (writer) =>
      remoteError.write(writer, { code, domain: 10, message, level: 2, object: null, text1: '%s', text2: null, text3: null, number1: 0, number2: 0, network: null }),
    );
  }
}

const open: Rpc[] = [];

function pair(options: { readonly inFlightMax?: number; readonly queuedMax?: number; readonly onMessage?: (program: number, procedure: number, reader: Reader) => void } = {}) {
  const [ours, theirs] = duplexPair();
  const peer = new Peer(theirs);
  const reasons: CloseReason[] = [];
  const rpc = new Rpc(ours, { inFlightMax: options.inFlightMax ?? 4, queuedMax: options.queuedMax ?? 100, onMessage: options.onMessage ?? nothing, onClosed: (reason) => reasons.push(reason) });
  open.push(rpc);
  const call = (more: { readonly argument?: number; readonly priority?: Priority; readonly timeoutMs?: number; readonly signal?: AbortSignal; readonly procedure?: number } = {}) =>
    rpc.call({
      program: programs.remote,
      procedure: more.procedure ?? 60,
      priority: more.priority ?? 'high',
      label: 'question',
      object: 'web-1',
      encode: (writer) => i32.write(writer, more.argument ?? 0),
      decode: (reader) => i32.read(reader),
      timeoutMs: more.timeoutMs ?? 5_000,
      signal: more.signal,
    });
  return { rpc, peer, reasons, call };
}

afterEach(() => {
  vi.useRealTimers();
  for (const rpc of open.splice(0)) rpc.close({ kind: 'closedByCaller', message: 'the test is over' });
});

const argumentOf = (packet: Seen) => packet.payload.readInt32BE(0);
const until = (condition: () => boolean) => vi.waitFor(() => expect(condition()).toBe(true), { timeout: 2_000, interval: 1 });

describe('packets', () => {
  it('come out whole, however the bytes are cut', () =>
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 }), fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 50 }), (payloads, cuts) => {
        const packets = payloads.map((payload, index) => encodePacket({ program: 1, procedure: 1, type: 0, serial: index, status: 0 }, (writer) => writer.fixedBytes(payload)));
        const bytes = Buffer.concat(packets);
        const splitter = new PacketSplitter();
        const seen: Buffer[] = [];
        for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
          const length = cuts[turn % cuts.length] as number;
          splitter.push(bytes.subarray(at, at + length), (packet) => seen.push(Buffer.from(packet)) > 0);
          at += length;
        }
        expect(seen).toEqual(packets);
      }),
    ));

  it('whose payload is taken in pieces lose none of it, however the bytes are cut', () =>
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 }), fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 50 }), (payloads, cuts) => {
        const packets = payloads.map((payload, index) => encodePacket({ program: 1, procedure: 1, type: 0, serial: index, status: 0 }, (writer) => writer.fixedBytes(payload)));
        const bytes = Buffer.concat(packets);
        const seen: Buffer[] = [];
        let taken = 0;
        const splitter = new PacketSplitter({
          takes: (head) => {
            const serial = head.readUInt32BE(20);
            expect(head.readUInt32BE(0)).toBe(packets[serial]?.length);
            if (serial % 3 === 0) return false;
            taken += 1;
            seen.push(Buffer.from(head.subarray(0, 28)));
            return true;
          },
          onPiece: (piece) => {
            expect(piece.length).toBeGreaterThan(0);
            seen.push(Buffer.concat([seen.pop() as Buffer, piece]));
            return true;
          },
        });
        for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
          const length = cuts[turn % cuts.length] as number;
          // What was given may be written over: only copies of it are looked at below.
          const chunk = Buffer.from(bytes.subarray(at, at + length));
          splitter.push(chunk, (packet) => seen.push(Buffer.from(packet)) > 0);
          chunk.fill(0xee);
          at += length;
        }
        expect(seen).toEqual(packets);
        // A cut of one byte leaves no packet with a payload whole.
        if (cuts.every((cut) => cut === 1)) expect(taken).toBe(packets.filter((packet, index) => packet.length > 28 && index % 3 !== 0).length);
      }),
    ));

  it('of an announced size that does not come take no memory', () => {
    const announced = Buffer.alloc(8);
    announced.writeUInt32BE(packetBytesMax);
    const before = process.memoryUsage().arrayBuffers;
    const splitters = Array.from({ length: 200 }, () => {
      const splitter = new PacketSplitter();
      splitter.push(announced, () => true);
      return splitter;
    });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1_048_576);
    expect(splitters.length).toBe(200);
  });

  it.each([0, 27, packetBytesMax + 1, 0xffff_ffff])('of %i bytes are refused', (length) => {
    const bytes = Buffer.alloc(64);
    bytes.writeUInt32BE(length);
    expect(() => new PacketSplitter().push(bytes, () => true)).toThrow(XdrError);
  });
});

describe('a call', () => {
  it('gets its own answer, in whatever order they come', async () => {
    const { call, peer } = pair({ inFlightMax: 64 });
    const calls = Array.from({ length: 64 }, (_, index) => call({ argument: index }));
    await until(() => peer.seen.length === 64);
    for (const packet of peer.seen.toReversed()) peer.reply(packet, (writer) => i32.write(writer, argumentOf(packet) * 2));
    expect(await Promise.all(calls)).toEqual(Array.from({ length: 64 }, (_, index) => index * 2));
  });

  it('that the daemon refuses fails with its words, the call and the object', async () => {
    const { call, peer } = pair();
    peer.onPacket = (packet) => peer.fail(packet, 42, 'Domain not found');
    const error: unknown = await call().catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(LibvirtError);
    expect(error).toMatchObject({ code: 42, domain: 10, level: 'error', reason: 'Domain not found', call: 'question', message: 'question web-1: Domain not found' });
    expect(isNoDomain(error)).toBe(true);
  });

  it('that the daemon does not know is unsupported, and the connection lives', async () => {
    const { call, peer } = pair();
    peer.onPacket = (packet) => (argumentOf(packet) === 1 ? peer.fail(packet, 39, 'unknown procedure: 9999') : peer.reply(packet, (writer) => i32.write(writer, 7)));
    await expect(call({ argument: 1 })).rejects.toBeInstanceOf(UnsupportedError);
    expect(await call()).toBe(7);
  });

  it('given up on keeps its place until the late answer, which is dropped', async () => {
    const { call, peer, rpc } = pair({ inFlightMax: 1 });
    await expect(call({ argument: 1, timeoutMs: 20 })).rejects.toMatchObject({ name: 'CallTimeout', sent: true });
    expect(rpc.load).toEqual({ inFlight: 1, abandoned: 1, queued: 0 });
    const next = call({ argument: 2 });
    await expect(call({ argument: 3, timeoutMs: 20 })).rejects.toMatchObject({ name: 'CallTimeout', sent: false });
    expect(peer.seen.map(argumentOf)).toEqual([1]);
    peer.reply(peer.seen[0] as Seen, (writer) => i32.write(writer, 1));
    await until(() => peer.seen.length === 2);
    peer.reply(peer.seen[1] as Seen, (writer) => i32.write(writer, 22));
    expect(await next).toBe(22);
    expect(rpc.load).toEqual({ inFlight: 0, abandoned: 0, queued: 0 });
  });

  it.each([2 ** 31, 2 ** 40, Number.POSITIVE_INFINITY])('with a time limit of %d ms has time', async (timeoutMs) => {
    const { call, peer } = pair();
    const answer = call({ timeoutMs });
    await until(() => peer.seen.length === 1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    peer.reply(peer.seen[0] as Seen, (writer) => i32.write(writer, 3));
    expect(await answer).toBe(3);
  });

  it('is aborted by its signal, before and after it was sent', async () => {
    const { call, peer } = pair({ inFlightMax: 1 });
    const first = new AbortController();
    const second = new AbortController();
    const sent = call({ signal: first.signal });
    const queued = call({ signal: second.signal });
    await until(() => peer.seen.length === 1);
    second.abort(new Error('changed my mind'));
    first.abort();
    await expect(queued).rejects.toMatchObject({ name: 'CallAborted', sent: false, cause: { message: 'changed my mind' } });
    await expect(sent).rejects.toMatchObject({ name: 'CallAborted', sent: true });
    await expect(call({ signal: AbortSignal.abort() })).rejects.toBeInstanceOf(CallAborted);
  });

  it('of low priority leaves the last place to those of high', async () => {
    const { call, peer } = pair({ inFlightMax: 4 });
    const low = Array.from({ length: 10 }, (_, index) => call({ argument: index, priority: 'low' }));
    for (const one of low) one.catch(nothing);
    await until(() => peer.seen.length === 3);
    const high = call({ argument: 99, priority: 'high' });
    await until(() => peer.seen.length === 4);
    const last = peer.seen.at(-1) as Seen;
    expect(argumentOf(last)).toBe(99);
    peer.reply(last, (writer) => i32.write(writer, 1));
    expect(await high).toBe(1);
    expect(peer.seen.length).toBe(4);
  });

  it('is refused when too many wait', async () => {
    const { call } = pair({ inFlightMax: 1, queuedMax: 2 });
    const calls = Array.from({ length: 3 }, () => call());
    for (const one of calls) one.catch(nothing);
    await expect(call()).rejects.toBeInstanceOf(CallRefused);
  });

  it('with an argument that does not fit is a TypeError and leaves nothing behind', async () => {
    const { call, rpc } = pair();
    await expect(call({ argument: 0.5 })).rejects.toBeInstanceOf(TypeError);
    expect(rpc.load).toEqual({ inFlight: 0, abandoned: 0, queued: 0 });
  });

  it('in flight fails when the connection ends, and says whether it was sent', async () => {
    const { call, peer, reasons } = pair({ inFlightMax: 1 });
    const sent = call();
    const queued = call();
    await until(() => peer.seen.length === 1);
    peer.socket.destroy();
    await expect(sent).rejects.toMatchObject({ name: 'Disconnected', sent: true });
    await expect(queued).rejects.toMatchObject({ name: 'Disconnected', sent: false });
    await expect(call()).rejects.toBeInstanceOf(Disconnected);
    expect(reasons).toMatchObject([{ kind: 'closedByPeer' }]);
  });
});

describe('packets that go apart', () => {
  it('are written one by one, and all of them', async () => {
    const written: number[] = [];
    let writing = 0;
    const socket = new Duplex({
      read: nothing,
      writev: () => expect.fail('two were joined'),
      write: (chunk: Buffer, _encoding, done) => {
        writing += 1;
        expect(writing).toBe(1);
        written.push(chunk.length);
        setImmediate(() => {
          writing -= 1;
          done();
        });
      },
    });
    const rpc = new Rpc(socket, { inFlightMax: 64, queuedMax: 100, packetsApart: true, onMessage: nothing, onClosed: nothing });
    open.push(rpc);
    const calls = Array.from({ length: 64 }, (_, argument) =>
      rpc.call({ program: programs.remote, procedure: 60, priority: 'high', label: 'question', object: undefined, encode: (writer) => i32.write(writer, argument), decode: (reader) => i32.read(reader), timeoutMs: 0, signal: undefined }),
    );
    for (const call of calls) call.catch(nothing);
    await until(() => written.length === 64);
    expect(new Set(written)).toEqual(new Set([32]));
  });
});

describe('time limits', () => {
  it('are kept one by one: a shorter one is not held up by a longer one, nor the other way round', async () => {
    const { call, peer } = pair({ inFlightMax: 3 });
    const ended: string[] = [];
    const limited = (name: string, timeoutMs: number) => call({ timeoutMs }).then(nothing, (error: unknown) => {
      expect(error).toBeInstanceOf(CallTimeout);
      ended.push(name);
    });
    const all = [limited('long', 150), limited('short', 20), limited('middle', 80)];
    // One that waits for a place has its limit too.
    all.push(limited('waiting', 50));
    await Promise.all(all);
    expect(ended).toEqual(['short', 'waiting', 'middle', 'long']);
    expect(peer.seen.length).toBe(3);
  });

  it('leave those alone that have none', async () => {
    const { call, peer } = pair();
    const endless = call({ timeoutMs: 0 });
    await expect(call({ timeoutMs: 20 })).rejects.toBeInstanceOf(CallTimeout);
    await new Promise((resolve) => setTimeout(resolve, 20));
    peer.reply(peer.seen[0] as Seen, (writer) => i32.write(writer, 3));
    expect(await endless).toBe(3);
  });
});

describe('waiting until a connection is idle', () => {
  it('ends when the last call is answered, given up or failed', async () => {
    const { rpc, call, peer } = pair({ inFlightMax: 2 });
    let idle = false;
    await rpc.idle();
    const answered = call({ argument: 1 });
    const abandoned = call({ argument: 2, timeoutMs: 20 });
    abandoned.catch(nothing);
    void rpc.idle().then(() => (idle = true));
    await expect(abandoned).rejects.toBeInstanceOf(CallTimeout);
    expect(idle).toBe(false);
    peer.reply(peer.seen[0] as Seen, (writer) => i32.write(writer, 1));
    await answered;
    await until(() => idle);
    const failed = call({ argument: 3 });
    failed.catch(nothing);
    const ended = rpc.idle();
    peer.socket.destroy();
    await ended;
    await expect(failed).rejects.toBeInstanceOf(Disconnected);
  });
});

describe('keepalive', () => {
  it('answers no more pings than a peer reads', async () => {
    const held: (() => void)[] = [];
    const socket = new Duplex({ read: nothing, write: (_chunk, _encoding, written) => void held.push(written) });
    const rpc = new Rpc(socket, { inFlightMax: 4, queuedMax: 4, onMessage: nothing, onClosed: nothing });
    open.push(rpc);
    const ping = encodePacket({ program: programs.keepalive, procedure: 1, type: messageType.message, serial: 0, status: messageStatus.ok }, nothing);
    const pings = Buffer.concat(Array.from({ length: 2_000 }, () => ping));
    for (let turn = 0; turn < 50; turn += 1) socket.push(pings);
    await until(() => socket.readableLength === 0);
    expect(socket.writableLength).toBeLessThan(1_000);
    expect(rpc.closeReason).toBeUndefined();
  });

  it('answers the daemon, whatever serial it uses', async () => {
    const { peer } = pair();
    peer.send({ program: programs.keepalive, procedure: 1, type: messageType.message, serial: 0 });
    await until(() => peer.seen.length === 1);
    expect(peer.seen[0]).toMatchObject({ program: programs.keepalive, procedure: 2, type: messageType.message });
  });

  it('closes a connection on which nothing is heard', async () => {
    const { rpc, peer, reasons, call } = pair();
    rpc.startKeepalive(10, 2);
    const hanging = call({ timeoutMs: 0 });
    await expect(hanging).rejects.toMatchObject({ reason: { kind: 'keepaliveTimeout' } });
    expect(reasons).toMatchObject([{ kind: 'keepaliveTimeout' }]);
    expect(peer.seen.filter((packet) => packet.program === programs.keepalive).length).toBeGreaterThanOrEqual(1);
  });

  it('takes any word as life', async () => {
    const { rpc, peer, reasons } = pair();
    peer.onPacket = (packet) => peer.send({ ...packet, procedure: 2 });
    rpc.startKeepalive(5, 1);
    await new Promise((resolve) => setTimeout(resolve, 80));
    expect(reasons).toEqual([]);
  });
});

describe('a peer that breaks the protocol', () => {
  const breaks: readonly (readonly [string, (peer: Peer, packet: Seen) => void])[] = [
    ['a length too small', (peer) => peer.socket.write(Buffer.alloc(64))],
    ['a length too large', (peer) => peer.socket.write(Buffer.alloc(64, 0xff))],
    ['a reply nobody asked for', (peer, packet) => peer.reply({ ...packet, serial: 12_345 })],
    ['a reply of another procedure', (peer, packet) => peer.reply({ ...packet, procedure: 61 }, (writer) => i32.write(writer, 1))],
    ['a reply that is too short', (peer, packet) => peer.reply(packet)],
    ['a reply that is too long', (peer, packet) => peer.reply(packet, (writer) => (i32.write(writer, 1), i32.write(writer, 1)))],
    ['an error that cannot be read', (peer, packet) => peer.send({ ...packet, type: messageType.reply, status: messageStatus.error }, (writer) => u32.write(writer, 1))],
    ['a status that is none', (peer, packet) => peer.send({ ...packet, type: messageType.reply, status: 9 })],
    ['a call to us', (peer) => peer.send({ type: messageType.call })],
    ['a type that is none', (peer) => peer.send({ type: 77 })],
    ['data of a stream that is not open', (peer) => peer.send({ type: messageType.stream, serial: 77, status: messageStatus.continue })],
    ['a hole of a stream that is not open', (peer) => peer.send({ type: messageType.streamHole, serial: 77, status: messageStatus.continue }, (writer) => (i64Number.write(writer, 1), u32.write(writer, 0)))],
    ['a message of a program that is none', (peer) => peer.send({ type: messageType.message, program: 7 })],
  ];

  it.each(breaks)('by %s ends the connection with a reason', async (_what, act) => {
    const { call, peer, reasons } = pair();
    peer.onPacket = (packet) => act(peer, packet);
    await expect(call()).rejects.toMatchObject({ name: 'Disconnected', reason: { kind: 'protocolViolation' } });
    expect(reasons).toMatchObject([{ kind: 'protocolViolation' }]);
  });
});

describe('a stream', () => {
  const openStream = (rpc: Rpc, timeoutMs = 5_000) => {
    let stream: LibvirtStream | undefined;
    const opened = rpc.call(
      { program: programs.remote, procedure: 201, priority: 'low', label: 'console', object: undefined, encode: nothing, decode: () => undefined, timeoutMs, signal: undefined },
      (port) => (stream = new LibvirtStream(port)),
    );
    return { opened, stream: stream as unknown as LibvirtStream };
  };
  const text = (value: string) => (writer: Writer) => writer.fixedBytes(Buffer.from(value));

  it('loses no data that comes with the reply, and ends when both sides have', async () => {
    const { rpc, peer } = pair();
    peer.onPacket = (packet) => {
      if (packet.type !== messageType.call) return;
      peer.socket.cork();
      peer.reply(packet);
      peer.send({ ...packet, type: messageType.stream, status: messageStatus.continue }, text('boot'));
      peer.send({ ...packet, type: messageType.stream, status: messageStatus.continue });
      peer.socket.uncork();
    };
    const { opened, stream } = openStream(rpc);
    await opened;
    const closed = new Promise((resolve) => stream.once('close', resolve));
    const read = stream.toArray();
    await until(() => peer.seen.some((packet) => packet.type === messageType.stream && packet.status === messageStatus.ok));
    peer.send({ ...(peer.seen[0] as Seen), type: messageType.stream, status: messageStatus.ok });
    expect(Buffer.concat((await read) as Buffer[]).toString()).toBe('boot');
    await closed;
  });

  it('is opened however much of its data comes before the reply', async () => {
    const { rpc, peer } = pair();
    const { opened, stream } = openStream(rpc);
    await until(() => peer.seen.length === 1);
    const asked = peer.seen[0] as Seen;
    const data = { ...asked, type: messageType.stream, status: messageStatus.continue };
    for (let sent = 0; sent < 8; sent += 1) peer.send(data, (writer) => writer.fixedBytes(Buffer.alloc(262_120)));
    peer.reply(asked);
    await opened;
    peer.send(data);
    peer.send({ ...data, status: messageStatus.ok });
    expect(Buffer.concat((await stream.toArray()) as Buffer[])).toHaveLength(8 * 262_120);
  });

  it('that is never opened ends the connection before its data fills the memory', async () => {
    const { rpc, peer, reasons } = pair();
    const { opened } = openStream(rpc);
    opened.catch(nothing);
    await until(() => peer.seen.length === 1);
    const data = { ...(peer.seen[0] as Seen), type: messageType.stream, status: messageStatus.continue };
    for (let sent = 0; sent < 1_000 && reasons.length === 0; sent += 1) {
      peer.send(data, (writer) => writer.fixedBytes(Buffer.alloc(262_120)));
      await new Promise(setImmediate);
    }
    expect(reasons).toMatchObject([{ kind: 'protocolViolation' }]);
    await expect(opened).rejects.toBeInstanceOf(Disconnected);
  });

  it('whose opening was given up keeps none of its data', async () => {
    const { rpc, peer } = pair();
    const { opened, stream } = openStream(rpc, 10);
    await expect(opened).rejects.toBeInstanceOf(CallTimeout);
    expect(stream.destroyed).toBe(true);
    const asked = peer.seen[0] as Seen;
    peer.send({ ...asked, type: messageType.stream, status: messageStatus.continue }, text('late'));
    peer.reply(asked);
    await until(() => peer.seen.length === 2);
    expect(peer.seen[1]).toMatchObject({ type: messageType.stream, status: messageStatus.error });
    expect(stream.readableLength).toBe(0);
  });

  it('sends what is written in packets the daemon takes, then its end', async () => {
    const { rpc, peer } = pair();
    peer.onPacket = (packet) => {
      if (packet.type === messageType.call) peer.reply(packet);
      if (packet.type === messageType.stream && packet.status === messageStatus.ok) peer.send(packet);
    };
    const { opened, stream } = openStream(rpc);
    await opened;
    const data = Buffer.alloc(600_000, 'x');
    stream.end(data);
    await new Promise((resolve) => stream.once('finish', resolve));
    const sent = peer.seen.filter((packet) => packet.type === messageType.stream);
    expect(sent.map((packet) => packet.payload.length)).toEqual([262_120, 262_120, 75_760, 0]);
    expect(Buffer.concat(sent.map((packet) => packet.payload)).equals(data)).toBe(true);
  });

  it('fails with the daemon’s words; what still comes is dropped', async () => {
    const { rpc, peer, call } = pair();
    peer.onPacket = (packet) => {
      if (packet.procedure === 60) return peer.reply(packet, (writer) => i32.write(writer, 5));
      if (packet.type !== messageType.call) return;
      peer.reply(packet);
      peer.fail(packet, 38, 'No space left on device', messageType.stream);
      peer.send({ ...packet, type: messageType.stream, status: messageStatus.ok });
    };
    const { opened, stream } = openStream(rpc);
    const failed = new Promise((resolve) => stream.once('error', resolve));
    await opened;
    expect(await failed).toMatchObject({ code: 38 });
    expect(await call()).toBe(5);
  });

  it('destroyed by its user is aborted in the daemon', async () => {
    const { rpc, peer } = pair();
    peer.onPacket = (packet) => packet.type === messageType.call && peer.reply(packet);
    const { opened, stream } = openStream(rpc);
    await opened;
    stream.destroy();
    await until(() => peer.seen.length === 2);
    expect(peer.seen[1]).toMatchObject({ type: messageType.stream, status: messageStatus.error });
  });

  it('whose opening was given up is aborted when it opens after all', async () => {
    const { rpc, peer } = pair();
    const { opened } = openStream(rpc, 10);
    await expect(opened).rejects.toBeInstanceOf(CallTimeout);
    peer.reply(peer.seen[0] as Seen);
    await until(() => peer.seen.length === 2);
    expect(peer.seen[1]).toMatchObject({ type: messageType.stream, status: messageStatus.error });
  });

  it.each([
    ['less than nothing', -1, 0],
    ['more than any disk', 2 ** 62, 0],
  ])('with a hole of %s ends the connection', async (_what, length, flags) => {
    const { rpc, peer, reasons } = pair();
    peer.onPacket = (packet) => {
      if (packet.type !== messageType.call) return;
      peer.reply(packet);
      peer.send({ ...packet, type: messageType.streamHole, status: messageStatus.continue }, (writer) => (i64Number.write(writer, length), u32.write(writer, flags)));
    };
    const { opened, stream } = openStream(rpc);
    await opened;
    await until(() => stream.destroyed);
    expect(reasons).toMatchObject([{ kind: 'protocolViolation' }]);
    expect(stream.errored).toBeInstanceOf(Disconnected);
  });

  it('with holes gives them among its data, or zeros', async () => {
    for (const segmented of [true, false]) {
      const { rpc, peer } = pair();
      peer.onPacket = (packet) => {
        if (packet.type === messageType.stream && packet.status === messageStatus.ok) return peer.send(packet);
        if (packet.type !== messageType.call) return;
        peer.reply(packet);
        const hole = (bytes: number) => peer.send({ ...packet, type: messageType.streamHole, status: messageStatus.continue }, (writer) => (i64Number.write(writer, bytes), u32.write(writer, 0)));
        const data = (value: string) => peer.send({ ...packet, type: messageType.stream, status: messageStatus.continue }, text(value));
        hole(200_000);
        data('data');
        hole(0);
        hole(3);
        hole(5);
        data('more');
        peer.send({ ...packet, type: messageType.stream, status: messageStatus.continue });
      };
      const { opened, stream } = openStream(rpc);
      await opened;
      const closed = new Promise((resolve) => stream.once('close', resolve));
      if (segmented) {
        const segments = [];
        for await (const segment of stream.segments()) segments.push('holeBytes' in segment ? segment.holeBytes : segment.toString());
        expect(segments).toEqual([200_000, 'data', 3, 5, 'more']);
      } else {
        expect(Buffer.concat((await stream.toArray()) as Buffer[]).equals(Buffer.concat([Buffer.alloc(200_000), Buffer.from('data'), Buffer.alloc(8), Buffer.from('more')]))).toBe(true);
      }
      await closed;
      expect(stream.errored).toBeNull();
    }
  });

  it('gives data on before its packet is whole, and drops the rest of what was given up', async () => {
    const { rpc, peer, call } = pair();
    peer.onPacket = (packet) => {
      if (packet.procedure === 60) return peer.reply(packet, (writer) => i32.write(writer, 5));
      if (packet.type === messageType.call) peer.reply(packet);
    };
    const { opened, stream } = openStream(rpc);
    await opened;
    const packet = encodePacket({ ...(peer.seen[0] as Seen), type: messageType.stream, status: messageStatus.continue }, (writer) => writer.fixedBytes(Buffer.alloc(1_000, 'x')));
    let received = 0;
    stream.on('data', (data: Buffer) => (received += data.length));
    peer.socket.write(packet.subarray(0, 228));
    await until(() => received === 200);
    peer.socket.write(packet.subarray(228, 300));
    await until(() => received === 272);
    stream.destroy();
    peer.socket.write(packet.subarray(300));
    expect(await call()).toBe(5);
    expect(received).toBe(272);
  });

  it('that never was, or of another version, ends the connection with the first words of its data', async () => {
    for (const [at, word] of [[20, 77], [8, 2]] as const) {
      const { rpc, peer, reasons } = pair();
      peer.onPacket = (packet) => packet.type === messageType.call && peer.reply(packet);
      const { opened, stream } = openStream(rpc);
      await opened;
      const packet = encodePacket({ ...(peer.seen[0] as Seen), type: messageType.stream, status: messageStatus.continue }, (writer) => writer.fixedBytes(Buffer.alloc(1_000)));
      packet.writeUInt32BE(word, at);
      peer.socket.write(packet.subarray(0, 100));
      if (at === 8) peer.socket.write(packet.subarray(100));
      await until(() => stream.destroyed);
      expect(reasons).toMatchObject([{ kind: 'protocolViolation' }]);
    }
  });

  it('that is not read holds the connection back rather than memory', async () => {
    const { rpc, peer } = pair();
    peer.onPacket = (packet) => packet.type === messageType.call && peer.reply(packet);
    const { opened, stream } = openStream(rpc);
    await opened;
    const packet = encodePacket({ ...(peer.seen[0] as Seen), type: messageType.stream, status: messageStatus.continue }, (writer) => writer.fixedBytes(Buffer.alloc(65_536)));
    let sent = 0;
    for (; sent < 1_000; sent += 1) {
      if (!peer.socket.write(packet) && sent > 50) break;
      await new Promise(setImmediate);
    }
    expect(stream.readableLength).toBeLessThan(1_048_576);
    expect(sent).toBeLessThan(1_000);
    let received = 0;
    stream.on('data', (data: Buffer) => (received += data.length));
    await until(() => received === (sent + 1) * 65_536);
  });
});
