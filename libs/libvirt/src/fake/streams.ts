/** Consoles, screens, and the bytes of volumes. */
import { deflateSync } from 'node:zlib';
import { png } from '../png.ts';
import { hashOf } from './clock.ts';
import type { FakeDomain, FakeNode } from './node.ts';
import { internal, invalidArgument, operationInvalid, operationFailed, systemError } from './refusal.ts';
import { SparseBytes, storageOf } from './storage.ts';
import type { Volume } from './storage.ts';
import { OpenStream } from './wire.ts';
import type { ServerStream } from './wire.ts';

const consoleLineMax = 4_096;

/** A login prompt that says again what is typed. One client at a time has it, as with libvirt. */
export function consoleStream(node: FakeNode, domain: FakeDomain, device: string | null, flags: readonly string[]): OpenStream {
  if (domain.facts.consoles === 0 || (device !== null && !/^(serial|console)\d+$/.test(device))) throw internal(`cannot find character device ${device ?? '<null>'}`);
  if (domain.consoleTaken !== undefined) {
    if (!flags.includes('force')) throw operationFailed('Active console session exists for this domain');
    domain.consoleTaken();
  }
  let port: ServerStream | undefined;
  let line = '';
  const say = (text: string) => void port?.send(Buffer.from(text));
  const prompt = () => say(`${domain.name} login: `);
  const left = () => {
    if (domain.consoleTaken === end) domain.consoleTaken = undefined;
  };
  const end = () => {
    domain.consoleTaken = undefined;
    port?.sendEnd();
  };
  domain.consoleTaken = end;
  return new OpenStream({
    onOpen: (opened) => {
      port = opened;
      say(`\r\nfake guest of ${node.hostname} on ttyS0\r\n\r\n`);
      prompt();
    },
    onData: (data) => {
      for (const character of data.toString('latin1')) {
        if (character === '\r' || character === '\n') {
          say(`\r\n${line === '' ? '' : `${line}: nobody here has that name\r\n`}`);
          line = '';
          prompt();
        } else if (line.length < consoleLineMax) {
          line += character;
          say(character);
        }
      }
    },
    onFinish: left,
    onAbort: left,
  });
}

const screen = { width: 720, height: 400 } as const;

/** A PNG of a text screen's size, in the domain's own colour, a little darker while it stands still. */
export function picture(node: FakeNode, domain: FakeDomain): Buffer {
  const { width, height } = screen;
  const colour = hashOf('screen', node.seed, domain.uuid);
  const dim = domain.state === 'running' ? 0 : 1;
  const row = Buffer.alloc(1 + width * 3);
  for (let x = 0; x < width; x += 1) row.set([((colour >>> 16) & 0xff) >>> dim, ((colour >>> 8) & 0xff) >>> dim, (colour & 0xff) >>> dim], 1 + x * 3);
  const pixels = Buffer.concat(Array.from({ length: height }, () => row));
  return png(width, height, deflateSync(pixels));
}

export function screenshotStream(node: FakeNode, domain: FakeDomain, number: number): OpenStream {
  if (!domain.facts.graphics) throw operationInvalid('no screens to take screenshot from');
  if (number > 0) throw invalidArgument('no such screen');
  return new OpenStream({ onOpen: (port) => void sendAll(port, [picture(node, domain)], false) }, 'image/png');
}

const zeros = Buffer.alloc(65_536);

async function sendAll(port: ServerStream, segments: Iterable<Buffer | number>, sparse: boolean): Promise<void> {
  for (const segment of segments) {
    if (port.over) return;
    if (typeof segment !== 'number') await port.send(segment);
    else if (sparse) port.sendHole(segment);
    else for (let left = segment; left > 0 && !port.over; left -= zeros.length) await port.send(zeros.subarray(0, Math.min(left, zeros.length)));
  }
  port.sendEnd();
}

interface Part {
  readonly offset: number;
  /** 0 is all. */
  readonly length: number;
  readonly sparse: boolean;
}

export function downloadStream(volume: Volume, { offset, length, sparse }: Part): OpenStream {
  if (offset > volume.capacity) throw systemError(`Unable to seek ${volume.path} to ${offset}: Invalid argument`, 'streams');
  const end = Math.min(volume.capacity, length === 0 ? volume.capacity : offset + length);
  const segments = volume.bytes === undefined ? (end > offset ? [end - offset] : []) : volume.bytes.segments(offset, end);
  return new OpenStream({ onOpen: (port) => void sendAll(port, segments, sparse) });
}

export function uploadStream(node: FakeNode, volume: Volume, { offset, length, sparse }: Part): OpenStream {
  if (volume.busy) throw operationInvalid(`volume '${volume.name}' is still in use.`, 'storage');
  const bytes = (volume.bytes ??= new SparseBytes(storageOf(node).budget));
  // Without a length a file grows with what is written to it.
  const end = length === 0 ? Number.MAX_SAFE_INTEGER : offset + length;
  let at = offset;
  volume.busy = true;
  const over = () => {
    volume.busy = false;
    volume.capacity = Math.max(volume.capacity, at);
    volume.allocation = Math.max(volume.allocation, bytes.bytesKept);
  };
  const room = (wanted: number) => {
    if (at + wanted > end) throw systemError(`cannot write to stream: No space left on device`, 'streams');
  };
  return new OpenStream({
    onData: (data) => {
      room(data.length);
      bytes.write(at, data);
      at += data.length;
    },
    onHole: (hole) => {
      if (!sparse || hole < 0) throw invalidArgument('holes are not expected on this stream', 'streams');
      room(hole);
      bytes.clear(at, hole);
      at += hole;
    },
    onFinish: over,
    onAbort: over,
  });
}
