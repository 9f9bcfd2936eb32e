/*
 * Typed parameters: libvirt's lists of fields that carry their own type, which it uses wherever a
 * structure is expected to grow.
 *
 * Here they are objects, with libvirt's own field names as keys (the headers' VIR_DOMAIN_BLOCK_IOTUNE_…
 * and so on name them and say what each means). Where the fields of a procedure are known, their types
 * are: `known` gives an object whose fields are optional and typed, so that a caller writes
 * `{ total_bytes_sec: 1_048_576 }` and the type on the wire follows. A field that is not known (a newer
 * daemon's) is kept when read, and can be written under `more` with its type beside it.
 */
import { bool, f64, i32, i64, string, u32, u64, XdrError } from './xdr.ts';
import type { Codec, Reader, Writer } from './xdr.ts';

/** Of a field that is not known: i64 and u64 are bigint, f64 and the 32-bit kinds are numbers. */
export type TypedParameterValue = number | bigint | boolean | string;
export type TypedParameters = Readonly<Record<string, TypedParameterValue>>;
export type TypedParameterIn =
  | { readonly i32: number }
  | { readonly u32: number }
  | { readonly i64: bigint }
  | { readonly u64: bigint }
  | { readonly f64: number }
  | { readonly bool: boolean }
  | { readonly string: string };
export type TypedParametersIn = Readonly<Record<string, TypedParameterIn>>;

const text = string();

function writeParameterValue(writer: Writer, value: TypedParameterIn): void {
  if ('i32' in value) {
    writer.i32(1);
    writer.i32(value.i32);
  } else if ('u32' in value) {
    writer.i32(2);
    writer.u32(value.u32);
  } else if ('i64' in value) {
    writer.i32(3);
    writer.i64(value.i64);
  } else if ('u64' in value) {
    writer.i32(4);
    writer.u64(value.u64);
  } else if ('f64' in value) {
    writer.i32(5);
    writer.f64(value.f64);
  } else if ('bool' in value) {
    writer.i32(6);
    bool.write(writer, value.bool);
  } else {
    writer.i32(7);
    text.write(writer, value.string);
  }
}

function readParameterValue(reader: Reader): TypedParameterValue {
  const kind = reader.i32();
  switch (kind) {
    case 1:
      return i32.read(reader);
    case 2:
      return u32.read(reader);
    case 3:
      return i64.read(reader);
    case 4:
      return u64.read(reader);
    case 5:
      return f64.read(reader);
    case 6:
      return bool.read(reader);
    case 7:
      return text.read(reader);
    default:
      throw new XdrError(`a typed parameter is of kind ${kind}`);
  }
}

// field, kind and the shortest value
const parameterBytesMin = 12;
const parameterNameBytesMax = 4_096;

function writeParameters(writer: Writer, parameters: readonly (readonly [string, TypedParameterIn])[], countMax: number): void {
  if (parameters.length > countMax) throw new XdrError(`${parameters.length} parameters exceed the limit of ${countMax}`);
  writer.u32(parameters.length);
  for (const [field, value] of parameters) {
    text.write(writer, field);
    writeParameterValue(writer, value);
  }
}

function readCount(reader: Reader, countMax: number): number {
  const count = reader.length(countMax);
  if (count * parameterBytesMin > reader.bytesLeft) throw new XdrError(`${count} parameters cannot fit ${reader.bytesLeft} bytes`);
  return count;
}

// Without a prototype, so that a field of any name is just a field.
const emptyRecord = <V>(): Record<string, V> => Object.create(null) as Record<string, V>;

/** A list of typed parameters of which no field is known beforehand. `countMax` is the procedure's own limit. */
export function typedParameters(countMax: number): Codec<TypedParameters, TypedParametersIn | undefined> {
  return {
    bytesMin: 4,
    write: (writer, parameters = {}) => writeParameters(writer, Object.entries(parameters), countMax),
    read: (reader) => {
      const count = readCount(reader, countMax);
      const parameters = emptyRecord<TypedParameterValue>();
      for (let index = 0; index < count; index += 1) {
        const field = reader.string(parameterNameBytesMax);
        parameters[field] = readParameterValue(reader);
      }
      return parameters;
    },
  };
}

/** Several objects, one after the other in one list: a field that is there already begins the next object. */
export function typedParameterGroups(countMax: number): Codec<TypedParameters[], readonly TypedParametersIn[]> {
  return {
    bytesMin: 4,
    write: (writer, groups) => writeParameters(writer, groups.flatMap((group) => Object.entries(group)), countMax),
    read: (reader) => {
      const count = readCount(reader, countMax);
      const groups: Record<string, TypedParameterValue>[] = [];
      for (let index = 0; index < count; index += 1) {
        const field = reader.string(parameterNameBytesMax);
        const value = readParameterValue(reader);
        const last = groups.at(-1);
        if (last === undefined || field in last) groups.push(Object.assign(emptyRecord<TypedParameterValue>(), { [field]: value }));
        else last[field] = value;
      }
      return groups;
    },
  };
}

/**
 * What a known field is on the wire and here. `i64` and `u64` are bigint here, since they may exceed
 * 2^53 (counters of nanoseconds and bytes); `signedSize` and `size` are the same on the wire and numbers
 * here (sizes, limits, milliseconds), rounded beyond 2^53. `strings` is a field that may come several
 * times.
 */
export type FieldKind = 'i32' | 'u32' | 'i64' | 'u64' | 'signedSize' | 'size' | 'f64' | 'bool' | 'string' | 'strings';
export type KnownFields = Readonly<Record<string, FieldKind>>;

interface ValueOf {
  readonly i32: number;
  readonly u32: number;
  readonly i64: bigint;
  readonly u64: bigint;
  readonly signedSize: number;
  readonly size: number;
  readonly f64: number;
  readonly bool: boolean;
  readonly string: string;
  readonly strings: readonly string[];
}

/** What is read: the known fields that the daemon gave, and any other under its own name. */
export type KnownOut<F extends KnownFields> = { readonly [K in keyof F]?: ValueOf[F[K]] } & {
  readonly [field: string]: TypedParameterValue | readonly string[] | undefined;
};
/** What is written: known fields as plain values, any other under `more`. */
export type KnownIn<F extends KnownFields> = { readonly [K in keyof F]?: ValueOf[F[K]] | undefined } & { readonly more?: TypedParametersIn };

function wireForm(kind: FieldKind, value: unknown): TypedParameterIn[] {
  // Each cast: KnownIn gives a field of this kind this type; a value of another type fails in the writer.
  switch (kind) {
    case 'i32':
      return [{ i32: value as number }];
    case 'u32':
      return [{ u32: value as number }];
    case 'i64':
      return [{ i64: value as bigint }];
    case 'u64':
      return [{ u64: value as bigint }];
    case 'signedSize':
      return [{ i64: BigInt(value as number) }];
    case 'size':
      return [{ u64: BigInt(value as number) }];
    case 'f64':
      return [{ f64: value as number }];
    case 'bool':
      return [{ bool: value as boolean }];
    case 'string':
      return [{ string: value as string }];
    case 'strings':
      return (value as readonly string[]).map((one) => ({ string: one }));
  }
}

/** The daemon may use another width than the headers say: what is a number for callers stays one. */
function readForm(kind: FieldKind, value: TypedParameterValue): TypedParameterValue {
  switch (kind) {
    case 'i64':
    case 'u64':
      if (typeof value !== 'number') return value;
      if (!Number.isFinite(value)) throw new XdrError(`a count is ${value}`);
      return BigInt(Math.trunc(value));
    case 'bool':
      return typeof value === 'string' ? value : Boolean(value);
    case 'string':
    case 'strings':
      return value;
    default:
      return typeof value === 'bigint' ? Number(value) : value;
  }
}

/** Typed parameters of which these fields are known. */
export function known<const F extends KnownFields>(fields: F, countMax: number): Codec<KnownOut<F>, KnownIn<F>> {
  const kinds = new Map<string, FieldKind>(Object.entries(fields));
  return {
    bytesMin: 4,
    write: (writer, parameters) => {
      const listed: (readonly [string, TypedParameterIn])[] = [];
      for (const [field, value] of Object.entries(parameters) as [string, unknown][]) {
        if (value === undefined) continue;
        const kind = kinds.get(field);
        if (kind !== undefined) listed.push(...wireForm(kind, value).map((one) => [field, one] as const));
        else if (field === 'more') listed.push(...Object.entries(value as TypedParametersIn));
        else throw new XdrError(`${field} is none of ${[...kinds.keys()].join(', ')}: other fields stand under "more", with their type`);
      }
      writeParameters(writer, listed, countMax);
    },
    read: (reader) => {
      const count = readCount(reader, countMax);
      const parameters = emptyRecord<TypedParameterValue | string[]>();
      for (let index = 0; index < count; index += 1) {
        const field = reader.string(parameterNameBytesMax);
        const value = readParameterValue(reader);
        const kind = kinds.get(field);
        if (kind !== 'strings') parameters[field] = kind === undefined ? value : readForm(kind, value);
        else if (Array.isArray(parameters[field])) parameters[field].push(String(value));
        else parameters[field] = [String(value)];
      }
      // Fields that are known have the type that was declared for them, as far as the daemon keeps to libvirt's headers.
      return parameters as KnownOut<F>;
    },
  };
}
