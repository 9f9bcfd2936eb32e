/*
 * A daemon that is not one: it opens like a real one, over a unix socket, and then does its worst. The
 * connection must end with a reason and fail everything that is under way, or go on; the process must
 * live and not grow.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { connect } from './connection.ts';
import type { ConnectOptions, Libvirt } from './connection.ts';
import { Disconnected } from './errors.ts';
import { procedures, programs, sessionProcedures } from './procedures.ts';
import { encodePacket, messageStatus, messageType, packetBytesMax, PacketSplitter } from './rpc.ts';
import type { PacketHeader } from './rpc.ts';
import { i32, i64Number, u32 } from './xdr.ts';
import type { Writer } from './xdr.ts';
import { heldBytes } from './testing-heap.ts';

const mebibyte = 1_048_576;
const nothing = () => {};

const packet = (header: Partial<PacketHeader>, encode: (writer: Writer) => void = nothing): Buffer =>
  encodePacket({ program: programs.remote, procedure: 1, type: messageType.reply, serial: 1, status: messageStatus.ok, ...header }, encode);
const raw = (...words: number[]): Buffer => {
  const bytes = Buffer.alloc(words.length * 4);
  words.forEach((word, index) => bytes.writeUInt32BE(word >>> 0, index * 4));
  return bytes;
};

type Attack = (socket: Socket, asked: PacketHeader) => void;

let folder: string;
let server: Server;
let sockets: Socket[];
let libvirts: Libvirt[];
/** Done in answer to the first call that is no opening word. */
let attack: Attack;

function serve(socket: Socket): void {
  sockets.push(socket);
  socket.on('error', nothing);
  const splitter = new PacketSplitter();
  const answers = new Map<number, (writer: Writer) => void>([
    [sessionProcedures.authList.number, (writer) => (u32.write(writer, 1), i32.write(writer, 0))],
    [sessionProcedures.connectOpen.number, nothing],
    [sessionProcedures.connectClose.number, nothing],
    [sessionProcedures.connectRegisterCloseCallback.number, nothing],
    [procedures.connectSupportsFeature.number, (writer) => i32.write(writer, 1)],
    [sessionProcedures.connectDomainEventCallbackRegisterAny.number, (writer) => i32.write(writer, 1)],
    [sessionProcedures.connectDomainEventCallbackDeregisterAny.number, nothing],
  ]);
  socket.on('data', (chunk: Buffer) =>
    splitter.push(chunk, (one) => {
      const [, program = 0, , procedure = 0, type = 0, serial = 0, status = 0] = Array.from({ length: 7 }, (_, index) => one.readUInt32BE(index * 4));
      const asked = { program, procedure, type, serial, status };
      if (type !== messageType.call) return true;
      const answer = answers.get(procedure);
      if (answer === undefined) attack(socket, asked);
      else socket.write(packet({ ...asked, type: messageType.reply }, answer));
      return true;
    }),
  );
}

const socketPath = () => join(folder, 'sock');
async function reach(options: ConnectOptions = {}): Promise<Libvirt> {
  const libvirt = await connect({ socket: socketPath(), driver: 'test:///default' }, options);
  libvirts.push(libvirt);
  return libvirt;
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cvho-'));
  sockets = [];
  libvirts = [];
  attack = nothing;
  server = createServer(serve);
  await new Promise<void>((resolve) => server.listen(socketPath(), resolve));
});

afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  await Promise.all(libvirts.map((libvirt) => libvirt.close()));
  await new Promise((resolve) => server.close(resolve));
  await rm(folder, { recursive: true, force: true });
});

/**
 * Writes as long as `on` says so, and no faster than the other side reads: a peer's own memory is not what
 * is tested. With `patienceMs` it gives up when the other side has not read for so long.
 */
async function pour(socket: Socket, bytes: Buffer, on: (written: number) => boolean, patienceMs?: number): Promise<number> {
  let written = 0;
  while (on(written) && !socket.destroyed) {
    written += bytes.length;
    if (socket.write(bytes)) {
      await new Promise(setImmediate);
      continue;
    }
    const read = new Promise<boolean>((resolve) => socket.once('drain', () => resolve(true)).once('close', () => resolve(false)));
    if (!(await (patienceMs === undefined ? read : Promise.race([read, delay(patienceMs, false)])))) break;
  }
  return written;
}

describe('a hostile daemon', () => {
  const violations: readonly (readonly [string, Attack])[] = [
    ['a length of nothing', (socket) => socket.write(raw(0, 0, 0, 0, 0, 0, 0))],
    ['a length below a header', (socket) => socket.write(raw(27, 0, 0, 0, 0, 0, 0))],
    ['a length beyond the limit', (socket) => socket.write(raw(packetBytesMax + 1))],
    ['a length below zero', (socket) => socket.write(raw(-1))],
    ['words of another protocol', (socket) => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n')],
    ['four billion elements', (socket, asked) => socket.write(packet({ ...asked, type: messageType.reply }, (writer) => u32.write(writer, 0xffff_ffff)))],
    ['more elements than there are bytes', (socket, asked) => socket.write(packet({ ...asked, type: messageType.reply }, (writer) => (u32.write(writer, 16_384), u32.write(writer, 0))))],
    ['a string longer than its packet', (socket, asked) => socket.write(packet({ ...asked, type: messageType.reply }, (writer) => (u32.write(writer, 1), u32.write(writer, 4_000_000))))],
    ['half an answer', (socket, asked) => socket.write(packet({ ...asked, type: messageType.reply }, (writer) => u32.write(writer, 1)))],
    ['an answer and then some', (socket, asked) => socket.write(packet({ ...asked, type: messageType.reply }, (writer) => (u32.write(writer, 0), u32.write(writer, 0), u32.write(writer, 0))))],
    ['an answer to a call that never was', (socket, asked) => socket.write(packet({ ...asked, type: messageType.reply, serial: 999_999 }))],
    ['an answer twice', (socket, asked) => { const answer = packet({ ...asked, type: messageType.reply }, (writer) => (u32.write(writer, 0), u32.write(writer, 0))); socket.write(Buffer.concat([answer, answer])); }],
    ['an answer of another program', (socket, asked) => socket.write(packet({ ...asked, type: messageType.reply, program: programs.qemu }))],
    ['a message of an unknown program', (socket) => socket.write(packet({ type: messageType.message, program: 0xdead_beef }))],
    ['a packet of another version', (socket, asked) => { const answer = packet({ ...asked, type: messageType.reply }); answer.writeUInt32BE(9, 8); socket.write(answer); }],
    ['data of a stream that never was', (socket) => socket.write(packet({ type: messageType.stream, serial: 7_777, status: messageStatus.continue }, (writer) => u32.write(writer, 0)))],
    ['a hole of a stream that never was', (socket) => socket.write(packet({ type: messageType.streamHole, serial: 7_777, status: messageStatus.continue }, (writer) => (i64Number.write(writer, 9), u32.write(writer, 0))))],
    ['a call of its own', (socket) => socket.write(packet({ type: messageType.call }))],
    ['an answer with file descriptors', (socket, asked) => socket.write(packet({ ...asked, type: messageType.replyWithFds }))],
    ['half an error', (socket, asked) => socket.write(packet({ ...asked, type: messageType.reply, status: messageStatus.error }, (writer) => i32.write(writer, 1)))],
    ['half a closing word', (socket) => socket.write(packet({ type: messageType.message, procedure: 362 }))],
    ['half an event', (socket) => socket.write(packet({ type: messageType.message, procedure: 318 }, (writer) => i32.write(writer, 1)))],
  ];

  it.each(violations)('that sends %s loses its connection, which says why', async (_what, act) => {
    attack = act;
    const libvirt = await reach({ inFlightMax: 4 });
    await libvirt.domainEvents({ kinds: ['lifecycle'] });
    const calls = Array.from({ length: 10 }, () => libvirt.connectListAllDomains());
    const outcomes = await Promise.allSettled(calls);
    const failed = outcomes.filter((outcome) => outcome.status === 'rejected');
    // An answer that was right before it went wrong is an answer.
    expect(failed.length).toBeGreaterThanOrEqual(9);
    for (const { reason } of failed) expect(reason).toMatchObject({ name: 'Disconnected', reason: { kind: 'protocolViolation' } });
    expect(await libvirt.closed).toMatchObject({ kind: 'protocolViolation', message: expect.stringMatching(/^libvirtd broke the protocol: ./) as string });
    await expect(libvirt.connectListAllDomains()).rejects.toBeInstanceOf(Disconnected);
  });

  it('that says that its hypervisor is gone is believed, with its reason', async () => {
    attack = (socket) => socket.write(packet({ type: messageType.message, procedure: 362 }, (writer) => i32.write(writer, 2)));
    const libvirt = await reach();
    await expect(libvirt.connectListAllDomains()).rejects.toMatchObject({ reason: { kind: 'hypervisorGone', message: expect.stringMatching(/it did not answer/) as string } });
  });

  it.each([
    ['closes at once', (socket: Socket) => socket.destroy(), 'Disconnected'],
    ['sends noise', (socket: Socket) => socket.write(Buffer.alloc(4_096, 0x5a)), 'Disconnected'],
    ['says nothing', nothing, 'Disconnected'],
    ['asks for a way of authentication that is none', (socket: Socket) => socket.once('data', () => socket.write(packet({ procedure: 66, serial: 1 }, (writer) => (u32.write(writer, 1), i32.write(writer, 77))))), 'UnsupportedError'],
  ])('that %s when it is reached is not waited for', async (_what, greet, name) => {
    server.removeAllListeners('connection').on('connection', (socket) => {
      sockets.push(socket);
      socket.on('error', nothing);
      greet(socket);
    });
    await expect(reach({ connectTimeoutMs: 300 })).rejects.toMatchObject({ name });
  });

  it.each([
    ['nothing or polkit is told nothing', [0, 2], []],
    ['polkit is asked for it', [2], [70]],
    ['polkit or SASL is asked for polkit, which needs no password', [1, 2], [70]],
  ])('that wants %s', async (_what, kinds, said) => {
    const seen: number[] = [];
    server.removeAllListeners('connection').on('connection', (socket) => {
      sockets.push(socket);
      const splitter = new PacketSplitter();
      socket.on('error', nothing).on('data', (chunk: Buffer) =>
        splitter.push(chunk, (one) => {
          const header = { procedure: one.readUInt32BE(12), serial: one.readUInt32BE(20) };
          seen.push(header.procedure);
          if (header.procedure === 66) socket.write(packet(header, (writer) => (u32.write(writer, kinds.length), kinds.forEach((kind) => i32.write(writer, kind)))));
          else if (header.procedure === 1 || header.procedure === 2 || header.procedure === 360) socket.write(packet(header));
          else socket.write(packet(header, (writer) => i32.write(writer, 1)));
          return true;
        }),
      );
    });
    await reach();
    expect(seen.slice(0, 2 + said.length)).toEqual([66, ...said, 1]);
  });

  it.each([{ inFlightMax: 0 }, { keepalive: { intervalMs: 0 } }, { keepalive: { intervalMs: 2 ** 31 } }, { keepalive: { missesMax: -1 } }, { connectTimeoutMs: 0 }, { connectTimeoutMs: Number.NaN }])(
    'is not even asked with %j',
    async (options) => {
      await expect(reach(options)).rejects.toBeInstanceOf(RangeError);
      expect(sockets).toEqual([]);
    },
  );

  it('that asks on and on in SASL is left', async () => {
    server.removeAllListeners('connection').on('connection', (socket) => {
      sockets.push(socket);
      const splitter = new PacketSplitter();
      socket.on('error', nothing).on('data', (chunk: Buffer) =>
        splitter.push(chunk, (one) => {
          const header = { procedure: one.readUInt32BE(12), serial: one.readUInt32BE(20) };
          if (header.procedure === 66) socket.write(packet(header, (writer) => (u32.write(writer, 1), i32.write(writer, 1))));
          if (header.procedure === 67) socket.write(packet(header, (writer) => writer.string('PLAIN', 100)));
          // Not complete, and nothing more to say.
          if (header.procedure >= 68) socket.write(packet(header, (writer) => (i32.write(writer, 0), i32.write(writer, 1), u32.write(writer, 0))));
          return true;
        }),
      );
    });
    await expect(reach({ credentials: { username: 'fred', password: 's3cret' } })).rejects.toMatchObject({ name: 'Disconnected', reason: { kind: 'authenticationFailed' } });
  });

  it('that announces 32 MiB a byte at a time gets no memory for it', async () => {
    const before = heldBytes();
    attack = (socket) => void (async () => {
      socket.write(raw(packetBytesMax));
      for (let turn = 0; turn < 2_000 && !socket.destroyed; turn += 1) {
        socket.write('x');
        await new Promise(setImmediate);
      }
    })();
    const libvirt = await reach();
    await expect(libvirt.connectListAllDomains({}, { timeoutMs: 300 })).rejects.toMatchObject({ name: 'CallTimeout' });
    expect(heldBytes() - before).toBeLessThan(4 * mebibyte);
  });

  it('that streams without end is stopped by a reader that stops, and ignored once the stream is given up', async () => {
    const data = packet({ procedure: 209, type: messageType.stream, serial: 0, status: messageStatus.continue }, (writer) => writer.fixedBytes(Buffer.alloc(65_536)));
    let poured: Promise<number> = Promise.resolve(0);
    let limit = 1_024 * mebibyte;
    attack = (socket, asked) => {
      if (asked.procedure !== 209) return void socket.write(packet({ ...asked, type: messageType.reply }, (writer) => (u32.write(writer, 0), u32.write(writer, 0))));
      socket.write(packet({ ...asked, type: messageType.reply }));
      data.writeUInt32BE(asked.serial, 20);
      poured = pour(socket, data, (written) => written < limit, 200);
    };
    const libvirt = await reach({ keepalive: false });
    const before = heldBytes();
    const download = await libvirt.storageVolDownload({ volume: { pool: 'p', name: 'v', key: '/v' } });
    expect(await poured).toBeLessThan(16 * mebibyte);
    expect(heldBytes() - before).toBeLessThan(8 * mebibyte);
    download.destroy();
    limit = 64 * mebibyte;
    poured = pour(sockets[0] as Socket, data, (written) => written < limit);
    expect(await poured).toBeGreaterThanOrEqual(limit);
    expect(await libvirt.connectListAllDomains()).toEqual([]);
    expect(heldBytes() - before).toBeLessThan(8 * mebibyte);
  });

  it('that sends holes without end is stopped too', async () => {
    const hole = packet({ procedure: 209, type: messageType.streamHole, serial: 0, status: messageStatus.continue }, (writer) => (i64Number.write(writer, Number.MAX_SAFE_INTEGER), u32.write(writer, 0)));
    let poured: Promise<number> = Promise.resolve(0);
    attack = (socket, asked) => {
      socket.write(packet({ ...asked, type: messageType.reply }));
      hole.writeUInt32BE(asked.serial, 20);
      const many = Buffer.concat(Array.from({ length: 1_000 }, () => hole));
      poured = pour(socket, many, (written) => written < 256 * mebibyte, 200);
    };
    const libvirt = await reach({ keepalive: false });
    const before = heldBytes();
    const download = await libvirt.storageVolDownload({ volume: { pool: 'p', name: 'v', key: '/v' }, flags: ['sparse'] });
    expect(await poured).toBeLessThan(16 * mebibyte);
    // Zeros are made only for who reads them.
    expect((download.read() as Buffer).every((byte) => byte === 0)).toBe(true);
    expect(download.readableLength).toBeLessThan(mebibyte);
    expect(heldBytes() - before).toBeLessThan(8 * mebibyte);
    download.destroy();
  });

  it('that pings and does not read the answers gets few', async () => {
    const ping = packet({ program: programs.keepalive, procedure: 1, type: messageType.message, serial: 0 });
    const pings = Buffer.concat(Array.from({ length: 10_000 }, () => ping));
    let poured: Promise<number> = Promise.resolve(0);
    attack = (socket) => {
      socket.pause();
      poured = pour(socket, pings, (written) => written < 32 * mebibyte);
    };
    const libvirt = await reach();
    const before = heldBytes();
    const call = libvirt.connectListAllDomains({}, { timeoutMs: 60_000 });
    call.catch(nothing);
    while ((await Promise.race([poured, delay(20, -1)])) <= 0) await delay(5);
    expect(await poured).toBeGreaterThanOrEqual(32 * mebibyte);
    expect(heldBytes() - before).toBeLessThan(4 * mebibyte);
    expect(libvirt.state.status).toBe('connected');
  });

  it('that tells of huge events without end fills no queue', async () => {
    const event = packet({ procedure: 333, type: messageType.message, serial: 1 }, (writer) => {
      i32.write(writer, 1);
      writer.string('web-1', 100);
      writer.fixedBytes(Buffer.alloc(16, 7));
      i32.write(writer, 1);
      writer.string('x'.repeat(2 * mebibyte), 4 * mebibyte);
    });
    let poured: Promise<number> = Promise.resolve(0);
    attack = (socket) => {
      poured = pour(socket, event, (written) => written < 256 * mebibyte);
    };
    const libvirt = await reach();
    const events = await libvirt.domainEvents({ kinds: ['deviceRemoved'] });
    const before = heldBytes();
    const call = libvirt.connectListAllDomains({}, { timeoutMs: 60_000 });
    call.catch(nothing);
    while ((await Promise.race([poured, delay(20, -1)])) <= 0) await delay(5);
    const held = heldBytes() - before;
    expect(held).toBeGreaterThan(8 * mebibyte);
    expect(held).toBeLessThan(32 * mebibyte);
    const kinds: string[] = [];
    for await (const one of events) {
      kinds.push(one.kind);
      if (one.kind === 'gap') {
        expect(one.lost).toBeGreaterThan(100);
        break;
      }
    }
    expect(kinds.length).toBeLessThan(10);
  });
});
