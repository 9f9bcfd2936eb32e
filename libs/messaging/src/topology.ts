/*
 * Every name of messaging, in one place: subjects, streams, durables, headers, and what an
 * agent may touch. Nothing else in the repository spells one out.
 *
 *   cv.evt.<category>.<id>.<EventType>   facts, published by the relay       stream EVENTS
 *   cv.cmd.<service>.<target>            orders to a service                 stream COMMANDS
 *   cv.cmd.node.<node>                   orders to a node                    stream COMMANDS
 *   cv.rpt.<node>.<category>.<id>        what a node saw                     stream REPORTS
 *   cv.dead.<subject>                    what nobody could handle            stream DEAD
 *   cv.ans.<process>.<service>           answers on their way back           core NATS
 *   cv.ans.<process>.node.<node>         answers of a node                   core NATS
 *   cv.hb.<node>                         heartbeats                          core NATS
 *   cv.hello.<node>                      an agent introduces itself          core NATS, a request
 *   cv.deliver.<node>                    its commands, as they reach it      pushed from COMMANDS
 *   cv.line.down.<node>.<line>           bytes for a node, of one line       core NATS
 *   cv.line.up.<node>.<line>             bytes of a node, of one line        core NATS
 *
 * Answers do not go to plain inboxes, because an agent that may publish to `_INBOX.>` may
 * forge any reply on the bus, JetStream's own included. The subject of an answer ends with
 * who gives it, so a node can answer as itself and as nobody else.
 *
 * Written for nats-server 2.9: one filter for each consumer, no metadata, no subject
 * transforms, no per-message TTL. A newer server is a drop-in.
 */

/** Streams, subjects and durables take only these characters of an id, so that no id can add a token or a wildcard. */
const TOKEN = /^[A-Za-z0-9_-]{1,200}$/;

/** Throws a RangeError when `value` cannot be one token of a subject or a part of a durable's name. */
export function token(value: string): string {
  if (!TOKEN.test(value)) throw new RangeError(`not a subject token: ${JSON.stringify(value.slice(0, 80))}`);
  return value;
}

export type StreamName = 'EVENTS' | 'COMMANDS' | 'REPORTS' | 'DEAD';

export interface StreamSpec {
  readonly name: StreamName;
  readonly subjects: readonly string[];
  /** `workqueue` forgets a message once it is acknowledged; `limits` forgets by age and size. */
  readonly retention: 'limits' | 'workqueue';
  readonly ageMaxMs: number;
  /** An upper bound: where the server has less room, the stream is made smaller. */
  readonly bytesMax: number;
  /** At `bytesMax`: drop the oldest, or refuse the newest so that publishers feel it. */
  readonly whenFull: 'old' | 'new';
  /** How long JetStream recognises a repeated Nats-Msg-Id. Only EVENTS and DEAD are sent with one. */
  readonly duplicatesMs: number;
}

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const GIB = 2 ** 30;

export const streams: readonly StreamSpec[] = [
  { name: 'EVENTS', subjects: ['cv.evt.>'], retention: 'limits', ageMaxMs: 7 * DAY, bytesMax: 4 * GIB, whenFull: 'old', duplicatesMs: 2 * MINUTE },
  // Whoever sent a command sends it again until its deadline, so what is a day old has no reader left: a removed node's, for example.
  { name: 'COMMANDS', subjects: ['cv.cmd.>'], retention: 'workqueue', ageMaxMs: DAY, bytesMax: GIB, whenFull: 'new', duplicatesMs: 2 * MINUTE },
  { name: 'REPORTS', subjects: ['cv.rpt.>'], retention: 'limits', ageMaxMs: DAY, bytesMax: GIB, whenFull: 'old', duplicatesMs: 2 * MINUTE },
  { name: 'DEAD', subjects: ['cv.dead.>'], retention: 'limits', ageMaxMs: 30 * DAY, bytesMax: GIB, whenFull: 'old', duplicatesMs: 2 * MINUTE },
];

export interface ConsumerSpec {
  readonly stream: StreamName;
  readonly durable: string;
  readonly filter: string;
  /** How long the server waits for an acknowledgement or a sign of work before it delivers again. */
  readonly ackWaitMs: number;
  /** The bound of what is delivered and not settled, over all replicas; also the bound of a reader's memory. */
  readonly ackPendingMax: number;
  /** Where the server pushes to while somebody listens there; without it the reader pulls. */
  readonly deliverTo?: string;
}

/** After the death of a reader what it held comes again this late; a report is sent once, so nobody else makes up for it. */
const ACK_WAIT_MS = 10_000;

/** The commands of a service: one durable, shared by its replicas. */
export const commandsOf = (service: string): ConsumerSpec => ({
  stream: 'COMMANDS',
  durable: `${token(service)}-commands`,
  filter: `cv.cmd.${service}.*`,
  ackWaitMs: ACK_WAIT_MS,
  // Four times the widest window, so that one replica cannot take all there is.
  ackPendingMax: 4096,
});

/**
 * The commands of a node: made by the control plane, pushed to the node's agent. Pushed, because
 * a pull names a reply subject, and a reply subject is not checked against permissions: an agent
 * could make JetStream answer to `$JS.API.STREAM.DELETE.EVENTS` (seen on 2.9.10). So agents live
 * in an account of their own, into which this one subject is imported; and pulls from another
 * account leave an entry in the server for each pull (seen: 0.5 KiB). A push costs neither, and
 * an idle agent sends nothing.
 */
export const commandsOfNode = (nodeId: string): ConsumerSpec => ({
  stream: 'COMMANDS',
  durable: `node-${token(nodeId)}-commands`,
  filter: `cv.cmd.node.${nodeId}`,
  ackWaitMs: ACK_WAIT_MS,
  ackPendingMax: 256,
  deliverTo: `cv.deliver.${nodeId}`,
});

/** What nodes saw of one category, for the service that owns it. */
export const reportsFor = (service: string, category: string): ConsumerSpec => ({
  stream: 'REPORTS',
  // A service that owns several categories needs several durables: a 2.9 consumer has one filter.
  durable: `${token(service)}-reports-${token(category)}`,
  filter: `cv.rpt.*.${category}.*`,
  ackWaitMs: ACK_WAIT_MS,
  ackPendingMax: 1024,
});

/** Everything that nodes saw, for a service that records all of it. */
export const allReportsFor = (service: string): ConsumerSpec => ({
  stream: 'REPORTS',
  durable: `${token(service)}-reports`,
  filter: 'cv.rpt.>',
  ackWaitMs: ACK_WAIT_MS,
  ackPendingMax: 1024,
});

/** Events as they are relayed, for a reader that wants them kept for it while it is away. */
export const eventsFor = (service: string, purpose: string, filter: string): ConsumerSpec => ({
  stream: 'EVENTS',
  durable: `${token(service)}-${token(purpose)}`,
  filter,
  ackWaitMs: ACK_WAIT_MS,
  ackPendingMax: 1024,
});

/** Every durable of the services, for the leader that keeps them: each one's commands, and the reports that someone records. */
export const serviceConsumers: readonly ConsumerSpec[] = [
  ...['gateway', 'scheduler', 'ipam', 'storage', 'monitor'].map(commandsOf),
  reportsFor('scheduler', 'vm'),
  reportsFor('scheduler', 'drift'),
  reportsFor('scheduler', 'boot'),
  reportsFor('scheduler', 'restore'),
  reportsFor('storage', 'pool'),
  reportsFor('storage', 'backup'),
];

/** The node of a durable that `commandsOfNode` made, or undefined. */
export function nodeOfDurable(durable: string): string | undefined {
  return /^node-(.+)-commands$/.exec(durable)?.[1];
}

export const subjects = {
  event: (category: string, id: string, type: string): string => `cv.evt.${token(category)}.${token(id)}.${token(type)}`,
  /** Events of one category, or of all. */
  events: (category?: string): string => (category === undefined ? 'cv.evt.>' : `cv.evt.${token(category)}.>`),
  /** `target` is the object the command is about, for example `subnet_7`; for `to: 'node'` it is the node. */
  command: (to: string, target: string): string => `cv.cmd.${token(to)}.${token(target)}`,
  report: (nodeId: string, category: string, id: string): string => `cv.rpt.${token(nodeId)}.${token(category)}.${token(id)}`,
  heartbeat: (nodeId: string): string => `cv.hb.${token(nodeId)}`,
  heartbeats: 'cv.hb.*',
  hello: (nodeId: string): string => `cv.hello.${token(nodeId)}`,
  hellos: 'cv.hello.*',
  dead: (subject: string): string => `cv.dead.${subject}`,
  /** Where `to` answers a command that the process `process` sent to `target`. */
  answer: (process: string, to: string, target: string): string =>
    to === 'node' ? `cv.ans.${token(process)}.node.${token(target)}` : `cv.ans.${token(process)}.${token(to)}`,
  /** Where JetStream says that a durable was made (its advisories; core NATS). */
  remade: ({ stream, durable }: Pick<ConsumerSpec, 'stream' | 'durable'>): string => `$JS.EVENT.ADVISORY.CONSUMER.CREATED.${stream}.${durable}`,
  answersTo: (process: string): string => `cv.ans.${token(process)}.>`,
  /** One line (line.ts): what its opener says, and what the node says. */
  lineDown: (nodeId: string, line: string): string => `cv.line.down.${token(nodeId)}.${token(line)}`,
  lineUp: (nodeId: string, line: string): string => `cv.line.up.${token(nodeId)}.${token(line)}`,
  /** Of all lines to a node. */
  linesDown: (nodeId: string): string => `cv.line.down.${token(nodeId)}.*`,
} as const;

/** True for a subject that an answer may be published to; whoever answers checks it, since it came in a header. */
export const isAnswerSubject = (subject: string): boolean => /^cv\.ans\.[A-Za-z0-9_-]+\.(node\.)?[A-Za-z0-9_-]+$/.test(subject);

export interface EventSubject {
  readonly category: string;
  readonly id: string;
  readonly type: string;
}

export function parseEventSubject(subject: string): EventSubject | undefined {
  const [cv, evt, category, id, type, ...rest] = subject.split('.');
  if (cv !== 'cv' || evt !== 'evt' || !category || !id || !type || rest.length > 0) return undefined;
  return { category, id, type };
}

export interface ReportSubject {
  readonly nodeId: string;
  readonly category: string;
  readonly id: string;
}

export function parseReportSubject(subject: string): ReportSubject | undefined {
  const [cv, rpt, nodeId, category, id, ...rest] = subject.split('.');
  if (cv !== 'cv' || rpt !== 'rpt' || !nodeId || !category || !id || rest.length > 0) return undefined;
  return { nodeId, category, id };
}

/** The node of a heartbeat's or a hello's subject. The server lets an agent publish only its own, so this is who it is. */
export function nodeOfSubject(subject: string): string | undefined {
  return /^cv\.(?:hb|hello)\.([A-Za-z0-9_-]+)$/.exec(subject)?.[1];
}

/** The line of a subject that `lineDown` made. */
export function lineOfSubject(subject: string): string | undefined {
  return /^cv\.line\.down\.[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)$/.exec(subject)?.[1];
}

/** Headers of our own. Traces use the W3C name `traceparent`. */
export const headerNames = {
  /** Id of the command, event or report. */
  id: 'Cv-Id',
  /** Type of the command, event or report, for readers that need not open the body. */
  type: 'Cv-Type',
  /** Subject for the answer. */
  reply: 'Cv-Reply',
  /** Position of an event in the log. */
  position: 'Cv-Position',
  /** Position of the event before it in its category; 0 for the first. */
  previous: 'Cv-Previous',
  /** Why a message was set aside. */
  reason: 'Cv-Reason',
  trace: 'traceparent',
  deduplicate: 'Nats-Msg-Id',
} as const;

/** Agents keep their replies under a prefix of their own: with the common one each could read the others'. */
export const agentInboxPrefix = (nodeId: string): string => `_INBOX_${token(nodeId)}`;

/** Services share one. */
export const serviceInboxPrefix = '_INBOX';

export interface Permissions {
  readonly pub: { readonly allow: readonly string[] };
  readonly sub: { readonly allow: readonly string[] };
}

/**
 * Everything an agent may do on the bus; what is not named is refused by the server. It receives
 * its own commands, answers them, reports, beats, says hello, answers lines that are opened to it, and
 * sets aside what it cannot read.
 */
export function agentPermissions(nodeId: string): Permissions {
  const { stream, durable, filter } = commandsOfNode(nodeId);
  return {
    pub: {
      allow: [
        `cv.rpt.${nodeId}.>`,
        subjects.heartbeat(nodeId),
        subjects.hello(nodeId),
        `cv.ans.*.node.${nodeId}`,
        `cv.line.up.${nodeId}.*`,
        subjects.dead(filter),
        `$JS.ACK.${stream}.${durable}.>`,
      ],
    },
    sub: { allow: [`${agentInboxPrefix(nodeId)}.>`, `cv.deliver.${nodeId}`, subjects.linesDown(nodeId)] },
  };
}

export interface Crossing {
  readonly name: string;
  readonly subject: string;
  /** `in`: agents publish and may be answered. `out`: agents listen. */
  readonly direction: 'in' | 'out';
}

/** What passes between the account of the agents and that of the services. Nothing else does, whatever a user's permissions say. */
export const crossings: readonly Crossing[] = [
  { name: 'reports', subject: 'cv.rpt.>', direction: 'in' },
  { name: 'heartbeats', subject: subjects.heartbeats, direction: 'in' },
  { name: 'hellos', subject: subjects.hellos, direction: 'in' },
  { name: 'answers', subject: 'cv.ans.*.node.*', direction: 'in' },
  { name: 'dead', subject: subjects.dead('cv.cmd.node.*'), direction: 'in' },
  { name: 'acknowledgements', subject: '$JS.ACK.COMMANDS.>', direction: 'in' },
  { name: 'lines up', subject: 'cv.line.up.*.*', direction: 'in' },
  { name: 'commands', subject: 'cv.deliver.*', direction: 'out' },
  { name: 'lines down', subject: 'cv.line.down.*.*', direction: 'out' },
];
