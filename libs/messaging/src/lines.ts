/* Lines (line.ts) over the bus: whoever opens one names the node and what it is for; the node's agent answers. */
import { randomBytes } from 'node:crypto';
import type { NatsConnection } from '@nats-io/transport-node';
import type { BusLog } from './connect.ts';
import { noLog } from './connect.ts';
import { decodeFrame, encodeFrame, Line, LineCut } from './line.ts';
import { lineOfSubject, subjects } from './topology.ts';

export interface LineOpening {
  readonly nc: NatsConnection;
  readonly nodeId: string;
  /** What it is for, as JSON of at most 4 KiB; both ends know its schema. */
  readonly what: unknown;
  /** An agent that has not answered by then is not there. Milliseconds. */
  readonly withinMs?: number;
}

const ANSWERED_WITHIN_MS = 10_000;
/** One node's lines at once; each holds half a megabyte at most. */
const LINES_MAX = 256;

/** Rejects with a LineCut: the agent's refusal, or 'node.no_answer'. */
export async function openLine({ nc, nodeId, what, withinMs = ANSWERED_WITHIN_MS }: LineOpening): Promise<Line> {
  const id = randomBytes(16).toString('hex');
  const down = subjects.lineDown(nodeId, id);
  const line = new Line({ role: 'opener', send: (message) => { nc.publish(down, message); } });
  const subscription = nc.subscribe(subjects.lineUp(nodeId, id), { callback: (err, message) => { if (err === null) line.receive(message.data); } });
  line.once('close', () => { if (!subscription.isClosed()) subscription.unsubscribe(); });
  const timer = setTimeout(() => { line.cut('node.no_answer', { nodeId }); }, withinMs);
  try {
    nc.publish(down, encodeFrame({ kind: 'open', what }));
    await line.opened;
    return line;
  } catch (fault) {
    line.destroy();
    throw fault;
  } finally {
    clearTimeout(timer);
  }
}

export interface LineAnswering {
  readonly nc: NatsConnection;
  readonly nodeId: string;
  /** Accepts the line, or throws a LineCut with the reason; any other fault is 'node.fault' to the opener. */
  readonly answer: (what: unknown, line: Line) => Promise<void>;
  readonly log?: BusLog;
  readonly linesMax?: number;
}

export interface Lines {
  /** How many there are. */
  count(): number;
  /** Cuts all with this code, and answers no more. */
  close(code: string): void;
}

/** The agent's side. Of one that is not known (any more) the other end is told at its next beat. */
export function answerLines({ nc, nodeId, answer, log = noLog, linesMax = LINES_MAX }: LineAnswering): Lines {
  const lines = new Map<string, Line>();
  const open = (id: string, what: unknown): void => {
    const up = subjects.lineUp(nodeId, id);
    const line = new Line({ role: 'answerer', send: (message) => { nc.publish(up, message); } });
    line.once('close', () => { lines.delete(id); });
    if (lines.size >= linesMax) return line.cut('node.too_many_lines', { most: linesMax });
    lines.set(id, line);
    answer(what, line).catch((fault: unknown) => {
      if (fault instanceof LineCut) return void line.destroy(fault);
      log.warn({ err: fault }, 'a line could not be answered');
      line.cut('node.fault');
    });
  };
  const subscription = nc.subscribe(subjects.linesDown(nodeId), {
    callback: (err, message) => {
      const id = err === null ? lineOfSubject(message.subject) : undefined;
      if (id === undefined) return;
      const known = lines.get(id);
      if (known !== undefined) return known.receive(message.data);
      const frame = decodeFrame(message.data);
      if (frame?.kind === 'open') open(id, frame.what);
      else if (frame !== undefined && frame.kind !== 'cut') nc.publish(subjects.lineUp(nodeId, id), encodeFrame({ kind: 'cut', code: 'line.unknown' }));
    },
  });
  return {
    count: () => lines.size,
    close: (code) => {
      if (!subscription.isClosed()) subscription.unsubscribe();
      for (const line of [...lines.values()]) line.cut(code);
    },
  };
}
