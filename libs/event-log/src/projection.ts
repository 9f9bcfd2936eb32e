/*
 * A projection is a named, versioned fold: documents by id, made from the log and from nothing else. It is
 * pure, so the same code fills tables (projection-runner.ts), memory (a scheduler's view of its nodes), and
 * the simulation. Rows and checkpoint move in one transaction; a change of meaning is a new version, which
 * fills new tables from the beginning and takes over when it has caught up.
 */
import type { RecordedEvent } from './log.ts';

export interface Projection<D> {
  /** '<schema>.<table>', named after the question it answers: 'gateway.vm_summary'. */
  readonly name: string;
  readonly version: number;
  /** Ids of the documents that an event touches; [] for those it does not concern. */
  keys(event: RecordedEvent): readonly string[];
  /** The document after the event; undefined: there is none any more. Never changes `document`. */
  fold(document: D | undefined, event: RecordedEvent, key: string): D | undefined;
}

/** The same fold in memory. */
export class ProjectionInMemory<D> {
  readonly documents = new Map<string, D>();
  readonly projection: Projection<D>;

  constructor(projection: Projection<D>) {
    this.projection = projection;
  }

  take(event: RecordedEvent): void {
    for (const key of this.projection.keys(event)) {
      const after = this.projection.fold(this.documents.get(key), event, key);
      if (after === undefined) this.documents.delete(key);
      else this.documents.set(key, after);
    }
  }
}
