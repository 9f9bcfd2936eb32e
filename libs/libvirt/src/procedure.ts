/*
 * What the table of procedures is written with.
 *
 * An entry says everything about a procedure: its number, the release that brought it, the layout of
 * its arguments in wire order, of its result, whether it runs in the daemon's high-priority lane, and
 * whether a stream follows. Types, encoder and decoder of a call follow from it (`Calls` in
 * connection.ts), and so do the README's table and the fake daemon. A further procedure is one
 * further entry.
 *
 * A procedure marked `high` may never wait for a guest's monitor. The daemon has few workers for the
 * others and more for these, and rpc.ts keeps a place for them.
 */
import { flags, hidden, i32, struct } from './xdr.ts';
import type { AnyCodec, Codec, Fields, Hidden, StructIn, StructOut } from './xdr.ts';

export const programs = { remote: 0x2000_8086, qemu: 0x2000_8087, keepalive: 0x6b65_6570 } as const;
export type Program = keyof typeof programs;
export type Priority = 'high' | 'low';
/** Who sends on the stream that a procedure opens. */
export type StreamDirection = 'up' | 'down' | 'both';

export interface Procedure<Args extends AnyCodec = AnyCodec, Result extends AnyCodec = AnyCodec, Stream extends StreamDirection | undefined = StreamDirection | undefined> {
  readonly program: 'remote' | 'qemu';
  readonly number: number;
  /** libvirt's release in which the function of this name came. */
  readonly since: string;
  readonly args: Args;
  readonly result: Result;
  readonly priority: Priority;
  readonly stream: Stream;
  /**
   * The daemon answers only to who knows how many values there are: the client asks with a `count` of
   * 0, and then with the `count` that came back.
   */
  readonly countFirst: boolean;
}

interface More<Stream extends StreamDirection | undefined> {
  readonly priority?: Priority;
  readonly stream?: Stream;
  readonly countFirst?: boolean;
}

function inProgram(program: 'remote' | 'qemu') {
  return <const F extends Fields, Result extends AnyCodec, const Stream extends StreamDirection | undefined = undefined>(
    number: number,
    since: string,
    args: F,
    result: Result,
    more: More<Stream> = {},
  ): Procedure<Codec<StructOut<F>, StructIn<F>>, Result, Stream> => ({
    program,
    number,
    since,
    args: struct(args),
    result,
    priority: more.priority ?? 'low',
    // Left out means undefined, which is then what Stream was inferred to be.
    stream: more.stream as Stream,
    countFirst: more.countFirst ?? false,
  });
}

export const remote = inProgram('remote');
export const qemu = inProgram('qemu');

export const high = { priority: 'high' } as const;

/** Asks for the objects rather than for their count. */
export const needResults = hidden(i32, 1);

/** How many elements a sibling has, which the wire says once more. */
export const countOf = (member: string, codec: Codec<number> = i32): Codec<Hidden> =>
  hidden(codec, (parent) => {
    const counted = parent[member];
    return Array.isArray(counted) ? counted.length : Object.keys(counted as object).length;
  });

/** Room for so many values: the daemon gives what there is. */
export const room = (count: number, codec: Codec<number> = i32): Codec<Hidden> => hidden(codec, count);

/** Bit 2 of many words of flags: strings among typed parameters are understood. */
const stringsUnderstood = 4;
export const affectAndStrings = flags({ live: 1, config: 2 }, stringsUnderstood);
export const onlyStrings = hidden(flags({}, stringsUnderstood), []);
