/** The parts that controllers are handed, joined in service.ts. */
import type { LinePurpose } from '@chronovirt/contracts/console/console.commands';
import type { NodeId } from '@chronovirt/contracts/ids';
import type { CommandHandler } from '@chronovirt/event-log/handle';
import type { EventLog } from '@chronovirt/event-log/log';
import type { Line } from '@chronovirt/messaging/line';
import type { Log } from '@chronovirt/observability/log';
import type { Metrics } from '@chronovirt/observability/metrics';
import type { Readiness } from '@chronovirt/observability/health';
import type { Authentication } from './auth.http.ts';
import type { ByteStore } from './bytes/byte-store.os.ts';
import type { ImageSettings } from './config.ts';
import type { AskNode } from './console/ask-node.http.ts';
import type { ConsoleStore } from './console/console.store.ts';
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
  /** Images and what becomes one; undefined: this gateway keeps none. */
  readonly bytes: ByteStore | undefined;
  readonly images: ImageSettings;
  /** One-time tokens of consoles. */
  readonly consoles: ConsoleStore;
  /** The WebSocket URL of consoles, as people reach it: by configuration, else as this caller did (his header Host). */
  consoleUrl(host: string | undefined): string | undefined;
  /** To a node's agent, once it has taken it. Rejects with a LineCut. */
  openLine(nodeId: NodeId, purpose: LinePurpose): Promise<Line>;
  readonly askNode: AskNode;
  readonly readiness: Readiness;
  readonly metrics: Metrics;
  readonly log: Log;
  now(): Date;
}
