/*
 * A service's projections, in its tables and in its memory.
 *
 * One process of a service fills the tables; every process that decides by them keeps the documents in
 * memory as well. It reads the tables once, at one position, and folds on from there by itself: so a start
 * costs the size of what is, not the length of history.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import { type Projection, ProjectionInMemory } from '@chronovirt/event-log/projection';
import { ProjectionRunner } from '@chronovirt/event-log/projection-runner';
import type { Host } from './host.ts';

/** Something in memory that is restored from documents by projection, and then takes every event. */
export interface View {
  restore(documents: Readonly<Record<string, ReadonlyMap<string, unknown>>>): void;
  take(event: RecordedEvent): void;
}

export interface Projections {
  readonly runner: ProjectionRunner;
  /** The documents of one of the projections, kept up to date. */
  readonly documents: <D>(projection: Projection<D>) => ReadonlyMap<string, D>;
}

type AnyProjection = Projection<unknown>;

const AGAIN_MS = 50;
/** A projection may be rebuilt at a start, which takes its time; longer than this is worth a line. */
const SAY_AFTER_MS = 5_000;

/** Starts filling the service's tables, and keeps what `views` want in memory. Without views, in maps of its own. */
export const openProjections = async (host: Host, projections: readonly AnyProjection[], views: readonly View[]): Promise<Projections> => {
  const runner = new ProjectionRunner({
    pool: host.pool, session: host.session, tail: host.tail, log: host.log, schema: host.service, projections,
    onTrouble: (err) => { host.logger.warn({ err }, 'a projection has trouble, trying again'); },
  });
  runner.start();
  host.onClose(() => runner.stop());

  const maps = new Map(projections.map((projection) => [projection.name, new ProjectionInMemory(projection)]));
  const own: View = {
    restore: (documents) => { for (const [name, map] of maps) for (const [id, document] of documents[name] ?? []) map.documents.set(id, document); },
    take: (event) => { for (const map of maps.values()) map.take(event); },
  };
  const kept = views.length > 0 ? views : [own];
  const { position, documents } = await readTogether(host, projections);
  for (const view of kept) view.restore(documents);
  const subscription = host.tail.subscribe({ after: position, name: `${host.service} view` }, (events) => {
    for (const event of events) for (const view of kept) view.take(event);
  });
  host.onClose(() => subscription.stop());
  return {
    runner,
    documents: <D>(projection: Projection<D>) => (maps.get(projection.name)?.documents ?? new Map()) as ReadonlyMap<string, D>,
  };
};

const readTogether = async (host: Host, projections: readonly AnyProjection[]): Promise<{ position: number; documents: Record<string, ReadonlyMap<string, unknown>> }> => {
  const startedAt = performance.now();
  let said = false;
  for (;;) {
    const read = await readAtOnePosition(host, projections).catch((err: unknown) => {
      host.logger.debug({ err }, 'tables of projections cannot be read yet');
      return undefined;
    });
    if (read !== undefined) return read;
    if (!said && performance.now() - startedAt > SAY_AFTER_MS) {
      said = true;
      host.logger.info({}, 'projections catch up, this start waits for them');
    }
    await sleep(AGAIN_MS);
  }
};

/** undefined while a projection is missing, of another version, or behind the others. */
const readAtOnePosition = async ({ pool, service }: Host, projections: readonly AnyProjection[]): Promise<{ position: number; documents: Record<string, ReadonlyMap<string, unknown>> } | undefined> => {
  const client = await pool.connect();
  try {
    await client.query('begin isolation level repeatable read read only');
    const { rows: checkpoints } = await client.query<{ name: string; version: number; position: string }>(`select name, version, position from ${service}.checkpoint`);
    const wanted = projections.map(({ name, version }) => checkpoints.find((row) => row.name === name && row.version === version));
    const position = wanted[0]?.position;
    if (position === undefined || wanted.some((row) => row?.position !== position)) return undefined;
    const documents: Record<string, ReadonlyMap<string, unknown>> = {};
    for (const { name } of projections) {
      const { rows } = await client.query<{ id: string; doc: unknown }>(`select id, doc from ${name}`);
      documents[name] = new Map(rows.map(({ id, doc }) => [id, doc]));
    }
    return { position: Number(position), documents };
  } finally {
    await client.query('rollback').catch(() => undefined);
    client.release();
  }
};
