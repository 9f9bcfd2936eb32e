/*
 * The log in Postgres.
 *
 * Appends that wait at the same moment go into one call of event_log.append and one commit, at most 256.
 * Behind one lock this is what makes gap-free positions cost nothing (the SQL says how). When many wait and
 * commits are quick, two groups take turns. Other processes do the same beside us; the lock orders all.
 *
 * Folded states of the streams used last are kept. One that was confirmed within the last second is used
 * without asking: a stale one costs a conflict, because every append checks the version, with 0 events too,
 * and the conflict makes the next load ask. A stream that others write as well is asked for every time, for
 * a while.
 *
 * An append is repeated when the connection breaks under it: its command's id makes that harmless.
 */
import { isDeepStrictEqual } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';
import type { EventTable } from '@chronovirt/contracts/event';
import type { Answer, Decider } from '@chronovirt/decider/decider';
import type pg from 'pg';
import { byteaArray, int2Array, int4Array, jsonbArray, textArray, uuidArray } from './binary-arrays.ts';
import { canonical, hashOfEvent } from './canonical.ts';
import { eventIdOf } from './command-id.ts';
import { decoderOf, EVENT_COLUMNS, type EventRow } from './event-row.ts';
import { Gather, type Gathered } from './gather.ts';
import { type Append, type EventLog, type EventMeta, type Loading, type Outcome, type RecordedEvent, SINCE_MAX } from './log.ts';
import { backOffMs, isConnectionLost, isDataError, rowsOf } from './sql.ts';

export interface PostgresLogOptions {
  /** Of a role that was admitted to event_log. */
  readonly pool: pg.Pool;
  /** Every event that may be read or written: `allEvents`. */
  readonly events: EventTable;
  /** Folded states kept, in streams. Default 5,000. */
  readonly statesMax?: number;
  /** For how long a kept state is used without asking, in milliseconds. Default 1,000; 0 asks every time. */
  readonly trustMs?: number;
  /**
   * Names the code that folds, a commit or an image's digest. With it, states are saved every 500 events,
   * and read by the same build alone: a fold that changed must not meet what the old one made.
   */
  readonly build?: string;
  readonly now?: () => number;
  /** Told of what this process has appended, right after its commit; of one append at a time. */
  readonly appended?: (events: readonly RecordedEvent[]) => void;
}

interface Kept {
  readonly decider: Decider<never, unknown, unknown>;
  readonly state: unknown;
  readonly version: number;
  /** Version of the last snapshot that we know of. */
  readonly savedVersion: number;
  /** Until when it is believed, by `now`. */
  readonly trustedUntil: number;
  /** Until when another writer is expected. */
  readonly contendedUntil: number;
}

/** A command, ready to be sent: everything that can be refused here was. */
interface Prepared {
  readonly commandId: string;
  readonly stream: string | null;
  readonly expected: number;
  readonly answer: string;
  readonly requestHash: string | null;
  readonly meta: string;
  readonly events: readonly { readonly id: string; readonly type: string; readonly shape: number; readonly data: string; readonly hash: Buffer }[];
}

type Settled =
  | { readonly kind: 'appended'; readonly firstPosition: number; readonly recordedAt: string }
  | { readonly kind: 'answered'; readonly answer: Answer; readonly requestHash: string | undefined }
  | { readonly kind: 'conflict' }
  | { readonly kind: 'again' };

type Stored = { readonly answer: Answer; readonly requestHash: string | undefined } | undefined;

const GROUP_MAX = 256;
/** Two groups of appends take turns while commits are quick. */
const APPEND_BESIDE = { itemsMin: 8, callMsMax: 3 };
const WAITING_MAX = 20_000;
const CONTENDED_MS = 10_000;
const SNAPSHOT_EVERY = 500;
/** 20, 40, 80 … ms: 5 s in all, longer than Postgres takes to come back from a crash. */
const ATTEMPTS_MAX = 9;

/** How a row of settled commands comes back. */
type SettledRow = readonly [outcome: Settled['kind'], firstPosition: number | null, answer: Answer | null, requestHash: string | null, recordedAt: string];

export class PostgresLog implements EventLog {
  private readonly pool: pg.Pool;
  private readonly events: EventTable;
  private readonly decode: (row: EventRow) => RecordedEvent;
  private readonly statesMax: number;
  private readonly trustMs: number;
  private readonly build: string | undefined;
  private readonly now: () => number;
  private readonly appended: PostgresLogOptions['appended'];
  private readonly states = new Map<string, Kept>();
  private readonly appends: Gather<Prepared, Settled>;
  private readonly loads: Gather<{ readonly stream: string; readonly after: number }, readonly RecordedEvent[]>;
  private readonly questions: Gather<string, Stored>;

  constructor({ pool, events, statesMax = 5_000, trustMs = 1_000, build, now = () => performance.now(), appended }: PostgresLogOptions) {
    this.appended = appended;
    this.pool = pool;
    this.events = events;
    this.decode = decoderOf(events);
    this.statesMax = statesMax;
    this.trustMs = trustMs;
    this.build = build;
    this.now = now;
    // An idle connection that breaks is no event: the next query says whether there is trouble.
    if (pool.listenerCount('error') === 0) pool.on('error', () => undefined);
    this.appends = new Gather((group) => this.appendGroup(group), { groupMax: GROUP_MAX, callsMax: 2, waitingMax: WAITING_MAX, beside: APPEND_BESIDE }, ({ stream }) => stream ?? undefined);
    this.loads = new Gather((group) => this.loadGroup(group), { groupMax: 64, callsMax: 2, waitingMax: WAITING_MAX });
    this.questions = new Gather((group) => this.askGroup(group), { groupMax: GROUP_MAX, callsMax: 1, waitingMax: WAITING_MAX });
  }

  /** Appends that wait for the next group: a metric of load. */
  get waiting(): number {
    return this.appends.size;
  }

  async load<C, E, S>(stream: string, decider: Decider<C, E, S>, how: Loading = 'kept'): Promise<{ readonly state: S; readonly version: number }> {
    const folding = decider as unknown as Decider<never, unknown, unknown>;
    let kept = this.states.get(stream);
    if (kept?.decider !== folding) kept = undefined;
    if (kept !== undefined && how !== 'fresh' && this.now() < kept.trustedUntil) {
      this.touch(stream, kept);
      return { state: kept.state as S, version: kept.version };
    }
    if (kept === undefined && how === 'new') {
      this.keep(stream, folding, folding.initial, 0, 0);
      return { state: decider.initial, version: 0 };
    }
    const from = kept ?? (await this.snapshotOf(stream)) ?? { state: folding.initial, version: 0, savedVersion: 0 };
    let { state, version } = from;
    for (let page = SINCE_MAX; page === SINCE_MAX;) {
      const events = await this.loads.add({ stream, after: version });
      for (const event of events) state = folding.evolve(state, event);
      version += events.length;
      page = events.length;
    }
    this.keep(stream, folding, state, version, from.savedVersion);
    return { state: state as S, version };
  }

  async append(append: Append): Promise<Outcome> {
    const { stream, expected } = append;
    const prepared = this.prepare(append.commandId, stream, expected, append.answer, append.events, append.meta, append.requestHash);
    const settled = await this.settle(prepared.command);
    switch (settled.kind) {
      case 'appended': {
        const events = prepared.command.events.map((event, index): RecordedEvent => ({
          position: settled.firstPosition + index, stream, version: expected + 1 + index, id: event.id, type: event.type,
          data: JSON.parse(event.data) as Readonly<Record<string, unknown>>, meta: prepared.meta, recordedAt: settled.recordedAt,
        }));
        this.foldAppended(stream, expected, events);
        this.appended?.(events);
        return { kind: 'appended', events };
      }
      case 'conflict':
        this.distrust(stream);
        return settled;
      case 'answered':
        // A stream that was taken for new has most likely a history, and the command was obeyed in it.
        if (expected === 0) this.states.delete(stream);
        return settled;
    }
  }

  async answer(commandId: string, answer: Answer, meta: EventMeta, requestHash?: string): Promise<Outcome> {
    const settled = await this.settle(this.prepare(commandId, null, 0, answer, [], meta, requestHash).command);
    switch (settled.kind) {
      case 'appended':
        return { kind: 'appended', events: [] };
      case 'answered':
      case 'conflict':
        return settled;
    }
  }

  answered(commandId: string): Promise<Stored> {
    return this.questions.add(commandId);
  }

  async read(after: number, limit: number): Promise<readonly RecordedEvent[]> {
    const rows = await rowsOf<EventRow>(this.pool, 'event_log.read', `select ${EVENT_COLUMNS} from event_log.event e where e.position > $1 order by e.position limit $2`, [after, limit]);
    return rows.map(this.decode);
  }

  async head(): Promise<number> {
    const [row] = await rowsOf<[number]>(this.pool, 'event_log.head', 'select position from event_log.head');
    return row?.[0] ?? 0;
  }

  since(stream: string, version: number): Promise<readonly RecordedEvent[]> {
    return this.loads.add({ stream, after: version });
  }

  written({ type, data }: { readonly type: string; readonly data: object }): Readonly<Record<string, unknown>> {
    const spec = Object.hasOwn(this.events, type) ? this.events[type] : undefined;
    if (spec === undefined) throw new Error(`${type} is no event that may be written`);
    return JSON.parse(canonical(spec.write(data))) as Readonly<Record<string, unknown>>;
  }

  /** Forgets answers older than 30 days, a bounded number at a time. Returns how many. */
  async forgetAnswers(limit = 10_000): Promise<number> {
    const [row] = await rowsOf<[number]>(this.pool, undefined, 'select event_log.forget_answers($1)', [limit]);
    return row?.[0] ?? 0;
  }

  private prepare(
    commandId: string, stream: string | null, expected: number, answer: Answer, events: Append['events'], meta: EventMeta, requestHash: string | undefined,
  ): { readonly command: Prepared; readonly meta: EventMeta } {
    const metaText = canonical(meta);
    const prepared = events.map(({ type, data }, index) => {
      const spec = Object.hasOwn(this.events, type) ? this.events[type] : undefined;
      if (spec === undefined || stream === null) throw new Error(`${type} is no event that may be written`);
      const dataText = canonical(spec.write(data));
      const event = { id: eventIdOf(commandId, index), type, shape: spec.shape };
      return { ...event, data: dataText, hash: hashOfEvent({ ...event, stream, version: expected + 1 + index }, dataText, metaText) };
    });
    return {
      command: { commandId, stream, expected, answer: canonical(answer), requestHash: requestHash ?? null, meta: metaText, events: prepared },
      // As whoever reads it later will see it: without members that are undefined.
      meta: events.length === 0 ? meta : (JSON.parse(metaText) as EventMeta),
    };
  }

  private async settle(command: Prepared): Promise<Exclude<Settled, { kind: 'again' }>> {
    // Of equal ids in one group the first is settled, so this ends after as many rounds as there are equals.
    for (let round = 0; round <= WAITING_MAX; round++) {
      const settled = await this.appends.add(command);
      if (settled.kind !== 'again') return settled;
    }
    throw new Error(`command ${command.commandId} was never settled`);
  }

  private async appendGroup(group: readonly Prepared[]): Promise<readonly Gathered<Settled>[]> {
    try {
      return (await this.appendOnce(group)).map((result) => ({ result }));
    } catch (error) {
      if (!isDataError(error) || group.length === 1) throw error;
    }
    // One of them is at fault, and Postgres does not say which: only that one shall fail.
    const results: Gathered<Settled>[] = [];
    for (const command of group) {
      try {
        const [result] = await this.appendOnce([command]);
        results.push(result === undefined ? { error: new Error('an append came back without an outcome') } : { result });
      } catch (error) {
        results.push({ error });
      }
    }
    return results;
  }

  private async appendOnce(group: readonly Prepared[]): Promise<readonly Settled[]> {
    const values = columnsOf(group);
    const rows = await this.insisting(() => rowsOf<SettledRow>(this.pool, 'event_log.append', APPEND, values));
    return rows.map(([kind, firstPosition, answer, requestHash, recordedAt]): Settled => {
      switch (kind) {
        case 'appended':
          return { kind, firstPosition: firstPosition ?? 0, recordedAt };
        case 'answered':
          return { kind, answer: answer as Answer, requestHash: requestHash ?? undefined };
        case 'conflict':
        case 'again':
          return { kind };
      }
    });
  }

  private async loadGroup(group: readonly { readonly stream: string; readonly after: number }[]): Promise<readonly Gathered<readonly RecordedEvent[]>[]> {
    const values = [group.map(({ stream }) => stream), group.map(({ after }) => after)];
    const rows = await this.insisting(() => rowsOf<readonly [...EventRow, number]>(this.pool, 'event_log.load', LOAD, values));
    const streams = group.map((): RecordedEvent[] => []);
    const failed = new Map<number, unknown>();
    for (const row of rows) {
      const at = row[9] - 1;
      if (failed.has(at)) continue;
      try {
        streams[at]?.push(this.decode(row as unknown as EventRow));
      } catch (error) {
        failed.set(at, error);
      }
    }
    return streams.map((result, at) => (failed.has(at) ? { error: failed.get(at) } : { result }));
  }

  private async askGroup(group: readonly string[]): Promise<readonly Gathered<Stored>[]> {
    const question = 'select command_id, answer, request_hash from event_log.answer where command_id = any($1::uuid[])';
    const rows = await this.insisting(() => rowsOf<[string, Answer, string | null]>(this.pool, 'event_log.answered', question, [group]));
    const found = new Map(rows.map(([id, answer, requestHash]) => [id, { answer, requestHash: requestHash ?? undefined }]));
    return group.map((id) => ({ result: found.get(id.toLowerCase()) }));
  }

  /** Repeats what may be repeated while Postgres is away. */
  private async insisting<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (!isConnectionLost(error) || attempt === ATTEMPTS_MAX) throw error;
        await sleep(backOffMs(attempt, 20, 2_000));
      }
    }
  }

  private foldAppended(stream: string, expected: number, events: readonly RecordedEvent[]): void {
    const kept = this.states.get(stream);
    if (kept === undefined || kept.version !== expected) return;
    const state = events.reduce<unknown>((now, event) => kept.decider.evolve(now, event), kept.state);
    this.keep(stream, kept.decider, state, expected + events.length, kept.savedVersion);
  }

  private keep(stream: string, decider: Kept['decider'], state: unknown, version: number, savedVersion: number): void {
    const known = this.states.get(stream);
    if (known?.decider === decider && known.version > version) return;
    const now = this.now();
    const contendedUntil = known?.contendedUntil ?? 0;
    let saved = savedVersion;
    if (this.build !== undefined && version - savedVersion >= SNAPSHOT_EVERY) {
      saved = version;
      this.saveSnapshot(stream, version, this.build, state);
    }
    this.touch(stream, { decider, state, version, savedVersion: saved, trustedUntil: now < contendedUntil ? 0 : now + this.trustMs, contendedUntil });
  }

  /** Puts it at the young end of the map and lets the oldest fall out. */
  private touch(stream: string, kept: Kept): void {
    this.states.delete(stream);
    this.states.set(stream, kept);
    if (this.states.size <= this.statesMax) return;
    for (const oldest of this.states.keys()) {
      this.states.delete(oldest);
      return;
    }
  }

  private distrust(stream: string): void {
    const kept = this.states.get(stream);
    if (kept !== undefined) this.states.set(stream, { ...kept, trustedUntil: 0, contendedUntil: this.now() + CONTENDED_MS });
  }

  private async snapshotOf(stream: string): Promise<{ readonly state: unknown; readonly version: number; readonly savedVersion: number } | undefined> {
    if (this.build === undefined) return undefined;
    const question = 'select state, version from event_log.snapshot where stream = $1 and writer = session_user and build = $2';
    const [row] = await this.insisting(() => rowsOf<[unknown, number]>(this.pool, 'event_log.snapshot', question, [stream, this.build]));
    return row === undefined ? undefined : { state: row[0], version: row[1], savedVersion: row[1] };
  }

  /** In the background and without consequences: it is a cache. */
  private saveSnapshot(stream: string, version: number, build: string, state: unknown): void {
    try {
      const text = canonical(state);
      // A state with a Map or a Date in it would come back as something else.
      if (!isDeepStrictEqual(JSON.parse(text), state)) return;
      this.pool.query('select event_log.save_snapshot($1, $2, $3, $4)', [stream, version, build, text]).catch(() => undefined);
    } catch {
      // It has no form that could be saved: then it is folded anew.
    }
  }
}

const APPEND = `select * from event_log.append(
  $1::int[], $2::int[], $3::uuid[], $4::text[], $5::int[], $6::jsonb[], $7::text[], $8::uuid[], $9::text[], $10::smallint[], $11::jsonb[], $12::jsonb[], $13::bytea[])`;

const LOAD = `
  select ${EVENT_COLUMNS}, u.o
  from unnest($1::text[], $2::int[]) with ordinality u(stream, version, o)
  cross join lateral (select * from event_log.event e where e.stream = u.stream and e.version > u.version order by e.version limit ${String(SINCE_MAX)}) e
  order by u.o, e.version`;

/** One row for each event, or for a command without any, as event_log.append takes them. */
const columnsOf = (group: readonly Prepared[]): readonly Buffer[] => {
  const numbers: number[] = [];
  const indexes: number[] = [];
  const commandIds: string[] = [];
  const streams: (string | null)[] = [];
  const versions: (number | null)[] = [];
  const answers: (string | null)[] = [];
  const requestHashes: (string | null)[] = [];
  const ids: (string | null)[] = [];
  const types: (string | null)[] = [];
  const shapes: (number | null)[] = [];
  const datas: (string | null)[] = [];
  const metas: string[] = [];
  const hashes: (Buffer | null)[] = [];
  group.forEach(({ commandId, stream, expected, answer, requestHash, meta, events }, number) => {
    for (let index = 0; index < Math.max(events.length, 1); index++) {
      const event = events[index];
      numbers.push(number);
      indexes.push(index);
      commandIds.push(commandId);
      streams.push(stream);
      versions.push(stream === null ? null : expected + index);
      answers.push(index === 0 ? answer : null);
      requestHashes.push(index === 0 ? requestHash : null);
      ids.push(event?.id ?? null);
      types.push(event?.type ?? null);
      shapes.push(event?.shape ?? null);
      datas.push(event?.data ?? null);
      metas.push(meta);
      hashes.push(event?.hash ?? null);
    }
  });
  return [
    int4Array(numbers), int4Array(indexes), uuidArray(commandIds), textArray(streams), int4Array(versions), jsonbArray(answers), textArray(requestHashes),
    uuidArray(ids), textArray(types), int2Array(shapes), jsonbArray(datas), jsonbArray(metas), byteaArray(hashes),
  ];
};
