/*
 * XDR (RFC 4506) as values that can be put together.
 *
 * A codec knows how to write a value and how to read it back, and carries both types: what reading
 * gives (`Decoded`) and what writing accepts (`Encodable`), which may be looser (an optional flag
 * list, a handle without its name). A layout is therefore written once, and the types of every call,
 * its encoder and its decoder follow from it.
 *
 * What is read was sent by someone else. Reading is bounded by three things: the reader never looks
 * past its packet, every string and array has a largest size of its own, and an array's count is
 * checked against the bytes that are left (each element needs at least `bytesMin`) before the first
 * element is read. So a packet of n bytes can make us allocate no more than a constant times n.
 */

/** The packet does not have the layout that was expected, or a value does not fit its layout. */
export class XdrError extends Error {
  override readonly name = 'XdrError';
}

/** Largest string of libvirt's protocol, in bytes (VIR_NET_MESSAGE_STRING_MAX of its documentation). */
export const stringBytesMax = 4_194_304;

const padding = (length: number): number => (4 - (length & 3)) & 3;

/** Walks over one packet. Throws `XdrError` rather than read beyond its end. */
export class Reader {
  readonly #buffer: Buffer;
  #offset: number;
  readonly #end: number;
  /**
   * Bits without a name in the last word of flags that was read. Whoever reads answers goes on without them, since a newer
   * server may say more; whoever is asked must refuse what it does not understand.
   */
  unknownFlags = 0;

  constructor(buffer: Buffer, offset = 0, end = buffer.length) {
    this.#buffer = buffer;
    this.#offset = offset;
    this.#end = end;
  }

  get bytesLeft(): number {
    return this.#end - this.#offset;
  }

  #take(length: number): number {
    const at = this.#offset;
    if (length > this.#end - at) throw new XdrError(`packet ends ${length - (this.#end - at)} bytes early`);
    this.#offset = at + length;
    return at;
  }

  i32(): number {
    return this.#buffer.readInt32BE(this.#take(4));
  }

  u32(): number {
    return this.#buffer.readUInt32BE(this.#take(4));
  }

  i64(): bigint {
    return this.#buffer.readBigInt64BE(this.#take(8));
  }

  u64(): bigint {
    return this.#buffer.readBigUInt64BE(this.#take(8));
  }

  /** An unsigned 64-bit value as a number; beyond 2^53 it is rounded. */
  u64Number(): number {
    const at = this.#take(8);
    return this.#buffer.readUInt32BE(at) * 4_294_967_296 + this.#buffer.readUInt32BE(at + 4);
  }

  f64(): number {
    return this.#buffer.readDoubleBE(this.#take(8));
  }

  /** The bytes themselves, not a copy: they live as long as the packet. */
  fixedBytes(length: number): Buffer {
    const at = this.#take(length + padding(length));
    return this.#buffer.subarray(at, at + length);
  }

  length(max: number): number {
    const length = this.u32();
    if (length > max) throw new XdrError(`a length of ${length} exceeds the limit of ${max}`);
    return length;
  }

  string(max: number): string {
    const length = this.length(max);
    const at = this.#take(length + padding(length));
    return this.#buffer.toString('utf8', at, at + length);
  }

  /** Throws unless everything has been read. */
  end(): void {
    if (this.#offset !== this.#end) throw new XdrError(`${this.#end - this.#offset} bytes are left over`);
  }
}

const scratchBytesInitial = 65_536;
const scratchBytesKept = 1_048_576;

/** Grows one buffer and is used over and over: encoding never waits, so two messages cannot overlap. */
export class Writer {
  #buffer = Buffer.allocUnsafeSlow(scratchBytesInitial);
  #offset = 0;
  readonly #bytesMax: number;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  #reserve(length: number): number {
    const at = this.#offset;
    const end = at + length;
    if (end > this.#buffer.length) {
      if (end > this.#bytesMax) throw new XdrError(`a message of more than ${this.#bytesMax} bytes`);
      const grown = Buffer.allocUnsafeSlow(Math.min(this.#bytesMax, Math.max(end, this.#buffer.length * 2)));
      this.#buffer.copy(grown, 0, 0, at);
      this.#buffer = grown;
    }
    this.#offset = end;
    return at;
  }

  reset(): void {
    if (this.#buffer.length > scratchBytesKept) this.#buffer = Buffer.allocUnsafeSlow(scratchBytesInitial);
    this.#offset = 0;
  }

  get bytes(): number {
    return this.#offset;
  }

  i32(value: number): void {
    if ((value | 0) !== value) throw new XdrError(`${value} is not a signed 32-bit integer`);
    // Reserve first: it may replace the buffer.
    const at = this.#reserve(4);
    this.#buffer.writeInt32BE(value, at);
  }

  u32(value: number): void {
    if (value >>> 0 !== value) throw new XdrError(`${value} is not an unsigned 32-bit integer`);
    const at = this.#reserve(4);
    this.#buffer.writeUInt32BE(value, at);
  }

  i64(value: bigint): void {
    if (BigInt.asIntN(64, value) !== value) throw new XdrError(`${value} is not a signed 64-bit integer`);
    const at = this.#reserve(8);
    this.#buffer.writeBigInt64BE(value, at);
  }

  u64(value: bigint): void {
    if (BigInt.asUintN(64, value) !== value) throw new XdrError(`${value} is not an unsigned 64-bit integer`);
    const at = this.#reserve(8);
    this.#buffer.writeBigUInt64BE(value, at);
  }

  f64(value: number): void {
    const at = this.#reserve(8);
    this.#buffer.writeDoubleBE(value, at);
  }

  fixedBytes(value: Uint8Array): void {
    const pad = padding(value.length);
    const at = this.#reserve(value.length + pad);
    this.#buffer.set(value, at);
    this.#buffer.fill(0, at + value.length, at + value.length + pad);
  }

  string(value: string, max: number): void {
    const length = Buffer.byteLength(value);
    if (length > max) throw new XdrError(`a string of ${length} bytes exceeds the limit of ${max}`);
    this.u32(length);
    const pad = padding(length);
    const at = this.#reserve(length + pad);
    this.#buffer.write(value, at, length, 'utf8');
    this.#buffer.fill(0, at + length, at + length + pad);
  }

  /** Overwrites four bytes that were written earlier. */
  patchU32(at: number, value: number): void {
    this.#buffer.writeUInt32BE(value, at);
  }

  /** A copy of what was written. */
  take(): Buffer {
    return Buffer.from(this.#buffer.subarray(0, this.#offset));
  }
}

export interface Codec<Out, In = Out> {
  /** No encoding of a value is shorter. */
  readonly bytesMin: number;
  /** A member of this kind is on the wire but in neither type: a struct writes what this returns. */
  readonly filledIn?: (parent: Readonly<Record<string, unknown>>) => unknown;
  write(writer: Writer, value: In): void;
  read(reader: Reader): Out;
}

// `any` because a codec is looked at here only to take its types out again.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type AnyCodec = Codec<any, any>;
export type Decoded<C> = C extends { read(reader: Reader): infer Out } ? Out : never;
export type Encodable<C> = C extends { write(writer: Writer, value: infer In): void } ? In : never;

export const i32: Codec<number> = {
  bytesMin: 4,
  write: (writer, value) => writer.i32(value),
  read: (reader) => reader.i32(),
};

export const u32: Codec<number> = {
  bytesMin: 4,
  write: (writer, value) => writer.u32(value),
  read: (reader) => reader.u32(),
};

export const i64: Codec<bigint> = {
  bytesMin: 8,
  write: (writer, value) => writer.i64(value),
  read: (reader) => reader.i64(),
};

/** 64 bits that may exceed 2^53: counters of nanoseconds, of bytes moved. */
export const u64: Codec<bigint> = {
  bytesMin: 8,
  write: (writer, value) => writer.u64(value),
  read: (reader) => reader.u64(),
};

/** 64 bits on the wire, of which no sane value exceeds 2^53 (KiB of memory, a size of a disk, a version). Beyond it, the number is rounded. */
export const u64Number: Codec<number> = {
  bytesMin: 8,
  write: (writer, value) => writer.u64(BigInt(value)),
  read: (reader) => reader.u64Number(),
};

/** As `u64Number`, signed. */
export const i64Number: Codec<number> = {
  bytesMin: 8,
  write: (writer, value) => writer.i64(BigInt(value)),
  read: (reader) => Number(reader.i64()),
};

export const f64: Codec<number> = {
  bytesMin: 8,
  write: (writer, value) => writer.f64(value),
  read: (reader) => reader.f64(),
};

/** An int of which any value but 0 is true, as libvirt uses them. */
export const bool: Codec<boolean> = {
  bytesMin: 4,
  write: (writer, value) => writer.i32(value ? 1 : 0),
  read: (reader) => reader.i32() !== 0,
};

export function string(max: number = stringBytesMax): Codec<string> {
  return {
    bytesMin: 4,
    write: (writer, value) => writer.string(value, max),
    read: (reader) => reader.string(max),
  };
}

/** Bytes with a length before them (`opaque<max>`). Reading copies them, so that the packet can go. */
export function bytes(max: number): Codec<Buffer, Uint8Array> {
  return {
    bytesMin: 4,
    write: (writer, value) => {
      if (value.length > max) throw new XdrError(`${value.length} bytes exceed the limit of ${max}`);
      writer.u32(value.length);
      writer.fixedBytes(value);
    },
    read: (reader) => Buffer.from(reader.fixedBytes(reader.length(max))),
  };
}

/**
 * A fixed array of C `char` holding text that ends at the first zero (`char[count]`). XDR gives each
 * of them four bytes.
 */
export function charArrayText(count: number): Codec<string> {
  return {
    bytesMin: count * 4,
    write: (writer, value) => {
      const text = Buffer.from(value);
      if (text.length >= count) throw new XdrError(`a text of ${text.length} bytes does not fit ${count}`);
      for (let index = 0; index < count; index += 1) writer.i32(text[index] ?? 0);
    },
    read: (reader) => {
      const text = Buffer.alloc(count);
      for (let index = 0; index < count; index += 1) text[index] = reader.i32() & 0xff;
      const end = text.indexOf(0);
      return text.toString('utf8', 0, end === -1 ? count : end);
    },
  };
}

/** `C *`: a word that says whether a value follows. Absent is `null` when read; `undefined` will do when written. */
export function optional<Out, In>(codec: Codec<Out, In>): Codec<Out | null, In | null | undefined> {
  return {
    bytesMin: 4,
    write: (writer, value) => {
      if (value === null || value === undefined) return writer.u32(0);
      writer.u32(1);
      codec.write(writer, value);
    },
    read: (reader) => {
      const present = reader.u32();
      if (present > 1) throw new XdrError(`a pointer begins with ${present}`);
      return present === 1 ? codec.read(reader) : null;
    },
  };
}

export function array<Out, In>(codec: Codec<Out, In>, countMax: number): Codec<Out[], readonly In[]> {
  return {
    bytesMin: 4,
    write: (writer, values) => {
      if (values.length > countMax) throw new XdrError(`${values.length} elements exceed the limit of ${countMax}`);
      writer.u32(values.length);
      for (const value of values) codec.write(writer, value);
    },
    read: (reader) => {
      const count = reader.length(countMax);
      if (count * codec.bytesMin > reader.bytesLeft) throw new XdrError(`${count} elements cannot fit ${reader.bytesLeft} bytes`);
      const values: Out[] = [];
      for (let index = 0; index < count; index += 1) values.push(codec.read(reader));
      return values;
    },
  };
}

declare const onTheWireOnly: unique symbol;
/** Stands in the types for a member that only the wire has. */
export interface Hidden {
  readonly [onTheWireOnly]: true;
}

/**
 * A member that callers neither give nor get: a constant, or something that follows from its
 * siblings (the count of an array that is also sent as a number).
 */
export function hidden<Out, In>(
  codec: Codec<Out, In>,
  value: In | ((parent: Readonly<Record<string, unknown>>) => In),
): Codec<Hidden> {
  const filledIn = typeof value === 'function' ? (value as (parent: Readonly<Record<string, unknown>>) => In) : () => value;
  // Hidden is a type without values: struct() is the only reader of such members and drops them.
  return { ...codec, filledIn } as unknown as Codec<Hidden>;
}

export type Fields = Readonly<Record<string, AnyCodec>>;
type Flat<T> = { [K in keyof T]: T[K] };
export type StructOut<F extends Fields> = Flat<{
  readonly [K in keyof F as Decoded<F[K]> extends Hidden ? never : K]: Decoded<F[K]>;
}>;
export type StructIn<F extends Fields> = Flat<
  {
    readonly [K in keyof F as Encodable<F[K]> extends Hidden ? never : undefined extends Encodable<F[K]> ? never : K]: Encodable<F[K]>;
  } & {
    readonly [K in keyof F as Encodable<F[K]> extends Hidden ? never : undefined extends Encodable<F[K]> ? K : never]?: Encodable<F[K]>;
  }
>;

/** Members in the order of the wire. A member whose codec takes `undefined` may be left out. */
export function struct<const F extends Fields>(fields: F): Codec<StructOut<F>, StructIn<F>> {
  const members = Object.entries(fields);
  return {
    bytesMin: members.reduce((sum, [, codec]) => sum + codec.bytesMin, 0),
    write: (writer, value) => {
      const given = value as Readonly<Record<string, unknown>>;
      for (const [name, codec] of members) {
        const member: unknown = codec.filledIn === undefined ? given[name] : codec.filledIn(given);
        codec.write(writer, member);
      }
    },
    read: (reader) => {
      const value: Record<string, unknown> = {};
      for (const [name, codec] of members) {
        const member: unknown = codec.read(reader);
        if (codec.filledIn === undefined) value[name] = member;
      }
      // The loop has just put every visible member there.
      return value as StructOut<F>;
    },
  };
}

/** Nothing on the wire. */
export const nothing: Codec<void> = { bytesMin: 0, write: () => {}, read: () => {} };

/** Another form of the same value. */
export function mapped<Wire, WireIn, Out, In>(
  codec: Codec<Wire, WireIn>,
  form: { readonly decode: (value: Wire) => Out; readonly encode: (value: In) => WireIn },
): Codec<Out, In> {
  return {
    bytesMin: codec.bytesMin,
    write: (writer, value) => codec.write(writer, form.encode(value)),
    read: (reader) => form.decode(codec.read(reader)),
  };
}

/** The value of the one member that matters. */
export function only<const F extends Fields, const K extends keyof F & string>(
  member: K,
  fields: F,
): Codec<Decoded<F[K]>, Encodable<F[K]>> {
  const inner = struct(fields);
  return mapped(inner, {
    // Both casts: struct() types its value as an object of all visible members, of which K is one.
    decode: (value) => (value as unknown as Record<K, Decoded<F[K]>>)[member],
    encode: (value: Encodable<F[K]>) => ({ [member]: value }) as StructIn<F>,
  });
}

/** A number with a name. A number without one (a newer daemon) is read as `unknown`. */
export function named<const N extends Readonly<Record<string, number>>>(names: N, codec: Codec<number> = i32): Codec<keyof N | 'unknown', keyof N> {
  const byNumber = new Map(Object.entries(names).map(([name, number]) => [number, name as keyof N]));
  return mapped(codec, {
    decode: (number) => byNumber.get(number) ?? ('unknown' as const),
    encode: (name: keyof N) => {
      const number = names[name];
      if (number === undefined) throw new XdrError(`${String(name)} is none of ${Object.keys(names).join(', ')}`);
      return number;
    },
  });
}

/** A choice between names that may be left out. */
export function choice<const N extends Readonly<Record<string, number>>>(
  names: N,
  otherwise: keyof N,
  codec: Codec<number> = i32,
): Codec<keyof N | 'unknown', keyof N | undefined> {
  const inner = named(names, codec);
  return mapped(inner, { decode: (name) => name, encode: (name: keyof N | undefined) => name ?? otherwise });
}

/** A set of bits by name; may be left out. Bits without a name are dropped when read (`Reader.unknownFlags`). `always` is set in any case. */
export function flags<const N extends Readonly<Record<string, number>>>(bits: N, always = 0): Codec<(keyof N)[], readonly (keyof N)[] | undefined> {
  const entries = Object.entries(bits) as [keyof N, number][];
  const unknown = ~entries.reduce((word, [, bit]) => word | bit, always);
  return {
    bytesMin: 4,
    write: (writer, names) =>
      writer.u32(
        (names ?? []).reduce((word, name) => {
          const bit = bits[name];
          if (bit === undefined) throw new XdrError(`${String(name)} is none of ${Object.keys(bits).join(', ')}`);
          return (word | bit) >>> 0;
        }, always),
      ),
    read: (reader) => {
      const word = reader.u32();
      reader.unknownFlags = (word & unknown) >>> 0;
      return entries.filter(([, bit]) => (word & bit) !== 0).map(([name]) => name);
    },
  };
}

/** With a value for callers who give none. */
export function defaulted<Out, In>(codec: Codec<Out, In>, otherwise: In): Codec<Out, In | undefined> {
  return { bytesMin: codec.bytesMin, read: (reader) => codec.read(reader), write: (writer, value) => codec.write(writer, value ?? otherwise) };
}
