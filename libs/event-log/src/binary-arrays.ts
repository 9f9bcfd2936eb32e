/*
 * Arrays in Postgres' binary form, as parameters of a statement (array_recv in arrayfuncs.c; elements as
 * their types' receive functions want them).
 *
 * An append sends 13 arrays with hundreds of documents. As text, every quote in every document would be
 * escaped here and unescaped there; this way each byte is copied once.
 *
 *     int32 dimensions (1, or 0 when empty) · int32 has nulls · int32 type of elements
 *     int32 count · int32 lower bound (1) · for each: int32 length (-1: null) · bytes
 */
type Maybe<T> = readonly (T | null)[];

/** Types by their oid in pg_type.dat. */
const OID = { bytea: 17, int2: 21, int4: 23, text: 25, uuid: 2950, jsonb: 3802 } as const;

const arrayOf = <T>(oid: number, values: Maybe<T>, sizeOf: (value: T) => number, write: (value: T, into: Buffer, at: number) => void): Buffer => {
  if (values.length === 0) {
    const empty = Buffer.alloc(12);
    empty.writeInt32BE(oid, 8);
    return empty;
  }
  const sizes = new Array<number>(values.length);
  let size = 20;
  let nulls = 0;
  values.forEach((value, index) => {
    const bytes = value === null ? -1 : sizeOf(value);
    sizes[index] = bytes;
    size += 4 + Math.max(bytes, 0);
    if (bytes < 0) nulls = 1;
  });
  const into = Buffer.allocUnsafe(size);
  into.writeInt32BE(1, 0);
  into.writeInt32BE(nulls, 4);
  into.writeInt32BE(oid, 8);
  into.writeInt32BE(values.length, 12);
  into.writeInt32BE(1, 16);
  let at = 20;
  values.forEach((value, index) => {
    const bytes = sizes[index] ?? -1;
    into.writeInt32BE(bytes, at);
    at += 4;
    if (value === null) return;
    write(value, into, at);
    at += bytes;
  });
  return into;
};

export const int4Array = (values: Maybe<number>): Buffer => arrayOf(OID.int4, values, () => 4, (value, into, at) => into.writeInt32BE(value, at));

export const int2Array = (values: Maybe<number>): Buffer => arrayOf(OID.int2, values, () => 2, (value, into, at) => into.writeInt16BE(value, at));

export const textArray = (values: Maybe<string>): Buffer => arrayOf(OID.text, values, (value) => Buffer.byteLength(value), (value, into, at) => into.write(value, at));

/** UUIDs in the usual spelling. */
export const uuidArray = (values: Maybe<string>): Buffer => arrayOf(OID.uuid, values, (value) => {
  if (value.length !== 36) throw new Error(`${value} is no UUID`);
  return 16;
}, (value, into, at) => {
  // write() stops without a word at what is no digit.
  if (into.write(value.replaceAll('-', ''), at, 16, 'hex') !== 16) throw new Error(`${value} is no UUID`);
});

/** JSON texts. */
export const jsonbArray = (values: Maybe<string>): Buffer => arrayOf(OID.jsonb, values, (value) => 1 + Buffer.byteLength(value), (value, into, at) => {
  // The version of jsonb's binary form; the text follows (jsonb_recv).
  into[at] = 1;
  into.write(value, at + 1);
});

export const byteaArray = (values: Maybe<Buffer>): Buffer => arrayOf(OID.bytea, values, (value) => value.length, (value, into, at) => void value.copy(into, at));
