import { type z } from 'zod';

/*
 * The shape of an event over time. The key in its table is the event's name for ever. Only the newest
 * shape is written; older rows are upcast as they are read, one revision at a time, so no consumer knows
 * that an old shape existed. When the meaning changes, it is another event.
 */
export class EventSpec<T> {
  readonly shape: number;
  private readonly schema: z.ZodType<T>;
  private readonly older: { readonly spec: EventSpec<never>; readonly upcast: (older: never) => unknown } | undefined;

  constructor(schema: z.ZodType<T>, older?: { readonly spec: EventSpec<never>; readonly upcast: (older: never) => unknown }) {
    this.schema = schema;
    this.older = older;
    this.shape = older === undefined ? 1 : older.spec.shape + 1;
  }

  /** A new shape beside the old one; `upcast` turns data of the old shape into the new. */
  revised<N>(schema: z.ZodType<N>, upcast: (older: T) => N): EventSpec<N> {
    return new EventSpec<N>(schema, { spec: this as unknown as EventSpec<never>, upcast: upcast });
  }

  /** Data of any shape ever written, in the newest shape. Throws when it is none of them. */
  read(data: unknown, shape: number): T {
    if (shape === this.shape) return this.schema.parse(data);
    if (shape > this.shape || shape < 1 || this.older === undefined) throw new Error(`an event of shape ${String(shape)} was written by a newer version: this one reads shapes 1 to ${String(this.shape)}`);
    return this.schema.parse(this.older.upcast(this.older.spec.read(data, shape)));
  }

  /** Data about to be written, checked against the newest shape. Throws on what no shape allows: that is our bug. */
  write(data: unknown): T {
    return this.schema.parse(data);
  }
}

export const event = <T>(schema: z.ZodType<T>): EventSpec<T> => new EventSpec(schema);

export type EventTable = Readonly<Record<string, EventSpec<never> | EventSpec<unknown> | { readonly shape: number; read(data: unknown, shape: number): unknown; write(data: unknown): unknown }>>;

/** The union of a table's events, newest shapes, inferred. */
export type EventOf<T> = { [K in keyof T & string]: T[K] extends EventSpec<infer D> ? { readonly type: K; readonly data: D } : never }[keyof T & string];
