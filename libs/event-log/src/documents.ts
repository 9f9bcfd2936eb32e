/*
 * The documents of one projection while it is folded: a bounded cache before its table.
 *
 * A batch is folded aside first and taken into the cache when its transaction is committed, so that a
 * failed batch leaves nothing behind. While everything ever written fits (a table filled from nothing), what
 * is not in the cache is known to be nowhere, and the table is not asked.
 */
import type { RecordedEvent } from './log.ts';
import type { Projection } from './projection.ts';

export type AnyProjection = Projection<unknown>;

export interface Change {
  /** Undefined: there is none any more. */
  readonly document: unknown;
  /** Of the last event that touched it. */
  readonly position: number;
}

/** A projection threw: a bug in it, and at which event. */
export class ProjectionFault extends Error {
  override readonly name = 'ProjectionFault';
}

export class Documents {
  private readonly projection: AnyProjection;
  private readonly most: number;
  private readonly cache = new Map<string, unknown>();
  private complete: boolean;
  private readonly find: (ids: readonly string[]) => Promise<readonly (readonly [id: string, document: unknown])[]>;

  /** `empty`: the table holds nothing now. */
  constructor(projection: AnyProjection, options: { readonly most: number; readonly empty: boolean; find(ids: readonly string[]): Promise<readonly (readonly [id: string, document: unknown])[]> }) {
    this.projection = projection;
    this.most = options.most;
    this.complete = options.empty;
    this.find = (ids) => options.find(ids);
  }

  /** What a batch changes. Nothing is taken in before `take`. */
  async fold(events: readonly RecordedEvent[]): Promise<Map<string, Change>> {
    const { projection, cache } = this;
    const touched = events.map((event) => this.guarded(event, () => projection.keys(event)));
    const known = new Map<string, unknown>();
    if (!this.complete) {
      const missing = new Set<string>();
      for (const keys of touched) for (const key of keys) if (!cache.has(key)) missing.add(key);
      if (missing.size > 0) for (const [id, document] of await this.find([...missing])) known.set(id, document);
    }
    const changes = new Map<string, Change>();
    events.forEach((event, index) => {
      for (const key of touched[index] ?? []) {
        const change = changes.get(key);
        const before = change === undefined ? (cache.has(key) ? cache.get(key) : known.get(key)) : change.document;
        const after = this.guarded(event, () => projection.fold(before, event, key));
        if (after !== before) changes.set(key, { document: after, position: event.position });
      }
    });
    // Found but unchanged: most likely asked for again.
    for (const [key, document] of known) if (!changes.has(key)) this.put(key, document);
    return changes;
  }

  take(changes: ReadonlyMap<string, Change>): void {
    for (const [key, { document }] of changes) this.put(key, document);
  }

  private put(key: string, document: unknown): void {
    this.cache.delete(key);
    // While the cache is complete, absence needs no entry.
    if (document === undefined && this.complete) return;
    this.cache.set(key, document);
    if (this.cache.size <= this.most) return;
    this.complete = false;
    for (const oldest of this.cache.keys()) {
      this.cache.delete(oldest);
      return;
    }
  }

  private guarded<T>(event: RecordedEvent, work: () => T): T {
    try {
      return work();
    } catch (cause) {
      throw new ProjectionFault(`${this.projection.name} cannot take event ${String(event.position)}, a ${event.type}`, { cause });
    }
  }
}
