/** The parts that controllers are handed, joined in service.ts. */
import type { CommandHandler } from '@chronovirt/event-log/handle';
import type { EventLog } from '@chronovirt/event-log/log';
import type { Log } from '@chronovirt/observability/log';
import type { Metrics } from '@chronovirt/observability/metrics';
import type { Readiness } from '@chronovirt/observability/health';
import type { Authentication } from './auth.http.ts';
import type { EventFeed } from './history/event-feed.store.ts';
import type { NodeCredentials } from './nodes/node-credentials.os.ts';
import type { Operations } from './operations/operations.store.ts';
import type { Reading } from './reading.store.ts';
import type { SubmitPorts } from './submit.ts';
import type { Views } from './views.store.ts';

export const GATEWAY = Symbol('gateway');

export interface Gateway {
  readonly installation: string;
  /** Where agents find the bus. */
  readonly natsUrls: readonly string[];
  readonly ports: SubmitPorts;
  readonly views: Views;
  readonly reading: Reading;
  readonly operations: Operations;
  readonly events: EventLog;
  /** For the gateway's own deciders: tokens, operations. */
  readonly handler: CommandHandler;
  readonly authentication: Authentication;
  readonly feed: EventFeed;
  readonly credentials: NodeCredentials | undefined;
  readonly readiness: Readiness;
  readonly metrics: Metrics;
  readonly log: Log;
  now(): Date;
}
