/*
 * Procedures and events that came after libvirt 9.0.0, the daemon that the other specs have. Their bytes
 * are written here a second time, by hand, from the description of the protocol; newer.libvirt.spec.ts
 * is for those who have a newer daemon.
 */
import { describe, expect, it } from 'vitest';
import { eventKindOf } from './events.ts';
import { guestInfo } from './guest-info.ts';
import { procedures } from './procedures.ts';
import type { Procedure } from './procedures.ts';
import { Reader, Writer } from './xdr.ts';

const int = (value: number): Buffer => {
  const word = Buffer.alloc(4);
  word.writeInt32BE(value);
  return word;
};
const text = (value: string): Buffer => Buffer.concat([int(Buffer.byteLength(value)), Buffer.from(value), Buffer.alloc((4 - (Buffer.byteLength(value) % 4)) % 4)]);
const some = (value: Buffer): Buffer => Buffer.concat([int(1), value]);
const none = int(0);

const uuid = '6695eb01-f6a4-8304-79aa-97f2502e193f';
const uuidBytes = Buffer.from('6695eb01f6a4830479aa97f2502e193f', 'hex');
const domain = { name: 'guest', uuid, id: 3 };
const domainBytes = Buffer.concat([text('guest'), uuidBytes, int(3)]);
const network = { name: 'lan', uuid };
const networkBytes = Buffer.concat([text('lan'), uuidBytes]);
/** A typed parameter: 2 is an unsigned number, 4 an unsigned one of 64 bits. */
const u32Parameter = (field: string, value: number) => Buffer.concat([text(field), int(2), int(value)]);
const u64Parameter = (field: string, value: number) => Buffer.concat([text(field), int(4), int(0), int(value)]);

interface Said {
  readonly name: keyof typeof procedures;
  readonly args: unknown;
  readonly bytes: readonly Buffer[];
  readonly number: number;
  readonly since: string;
}
const said: readonly Said[] = [
  { name: 'networkSetMetadata', number: 444, since: '9.7.0', args: { network, kind: 'title', metadata: 'x', flags: ['config'] }, bytes: [networkBytes, int(1), some(text('x')), none, none, int(2)] },
  {
    name: 'networkSetMetadata',
    number: 444,
    since: '9.7.0',
    args: { network, metadata: '<a/>', key: 'k', uri: 'urn:a', flags: ['live', 'config'] },
    bytes: [networkBytes, int(2), some(text('<a/>')), some(text('k')), some(text('urn:a')), int(3)],
  },
  { name: 'networkGetMetadata', number: 445, since: '9.7.0', args: { network, uri: 'urn:a' }, bytes: [networkBytes, int(2), some(text('urn:a')), int(0)] },
  { name: 'nodeDeviceUpdate', number: 447, since: '10.1.0', args: { name: 'mdev_1', xml: '<device/>', flags: ['live'] }, bytes: [text('mdev_1'), text('<device/>'), int(1)] },
  { name: 'domainGraphicsReload', number: 448, since: '10.2.0', args: { domain, kind: 'vnc' }, bytes: [domainBytes, int(1), int(0)] },
  { name: 'domainGetAutostartOnce', number: 449, since: '11.2.0', args: { domain }, bytes: [domainBytes] },
  { name: 'domainSetAutostartOnce', number: 450, since: '11.2.0', args: { domain, autostart: true }, bytes: [domainBytes, int(1)] },
  {
    name: 'domainSetThrottleGroup',
    number: 451,
    since: '11.2.0',
    args: { domain, group: 'slow', parameters: { total_bytes_sec: 1_000_000 }, flags: ['live'] },
    bytes: [domainBytes, text('slow'), int(1), u64Parameter('total_bytes_sec', 1_000_000), int(1)],
  },
  { name: 'domainDelThrottleGroup', number: 452, since: '11.2.0', args: { domain, group: 'slow', flags: ['config'] }, bytes: [domainBytes, some(text('slow')), int(2)] },
  {
    name: 'domainAnnounceInterface',
    number: 456,
    since: '12.5.0',
    args: { domain, device: 'vnet0', parameters: { initial: 50, rounds: 5 } },
    bytes: [domainBytes, some(text('vnet0')), int(2), u32Parameter('initial', 50), u32Parameter('rounds', 5), int(0)],
  },
];

describe('a procedure that came after 9.0.0', () => {
  it.each(said)('$name is said in the words of its description', ({ name, args, bytes, number, since }) => {
    const procedure: Procedure = procedures[name];
    expect(procedure).toMatchObject({ program: 'remote', number, since });
    const writer = new Writer(65_536);
    procedure.args.write(writer, args);
    expect(writer.take().toString('hex')).toBe(Buffer.concat(bytes).toString('hex'));
    // Who plays the daemon reads it to its end and finds what was meant.
    const reader = new Reader(Buffer.concat(bytes));
    expect(procedure.args.read(reader)).toMatchObject(args as object);
    reader.end();
  });

  it('has an answer', () => {
    const answer = (name: keyof typeof procedures, bytes: Buffer): unknown => {
      const reader = new Reader(bytes);
      const value: unknown = (procedures[name] as Procedure).result.read(reader);
      reader.end();
      return value;
    };
    expect(answer('networkGetMetadata', text('<a/>'))).toBe('<a/>');
    expect(answer('domainGetAutostartOnce', int(1))).toBe(true);
    const empty = said.map(({ name }) => name).filter((name) => name !== 'networkGetMetadata' && name !== 'domainGetAutostartOnce');
    for (const name of empty) expect(answer(name, Buffer.alloc(0))).toBeUndefined();
  });

  it('is in this list', () => {
    const newer = Object.entries(procedures as Readonly<Record<string, Procedure>>).filter(([, { number, program }]) => program === 'remote' && number > 443);
    expect(new Set(newer.map(([name]) => name))).toEqual(new Set(said.map(({ name }) => name)));
  });
});

describe('an event that came after 9.0.0', () => {
  it.each([
    { number: 446, bytes: [int(7), networkBytes, int(2), some(text('urn:a'))], event: { kind: 'metadataChange', network, metadata: 'element', uri: 'urn:a' } },
    {
      number: 453,
      bytes: [int(7), domainBytes, text('net0'), text('52:54:00:00:00:01'), text('52:54:00:00:00:02')],
      event: { kind: 'nicMacChange', domain, device: 'net0', macOld: '52:54:00:00:00:01', macNew: '52:54:00:00:00:02' },
    },
    { number: 454, bytes: [int(7), domainBytes, int(2)], event: { kind: 'vcpuRemoved', domain, vcpu: 2 } },
    { number: 455, bytes: [int(7), domainBytes, text('cv.0'), int(1), int(2)], event: { kind: 'channelLifecycle', domain, channel: 'cv.0', state: 'connected', reason: 'channel' } },
  ])('$number is read to its end', ({ number, bytes, event }) => {
    const kind = eventKindOf('remote', number);
    const reader = new Reader(Buffer.concat(bytes));
    expect({ kind: kind?.kind, ...(kind?.message.read(reader) as object) }).toEqual(event);
    reader.end();
  });
});

describe('the load of a guest', () => {
  it('is there when all three averages are', () => {
    expect(guestInfo({ 'load.1m': 0.5, 'load.5m': 1, 'load.15m': 2 }).load).toEqual([0.5, 1, 2]);
    expect(guestInfo({ 'load.1m': 0.5 }).load).toBeUndefined();
  });
});
