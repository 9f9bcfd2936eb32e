/*
 * Watches heartbeats and says when a node fell silent, came back, or shows another time. It holds only what
 * it heard; what was recorded is the presence decider's, which answers "no news" to what it knows already.
 * So a watcher may forget everything: after a restart each known node is given the full time to be heard.
 */
import type { PresenceCommand } from '@chronovirt/contracts/presence/presence.commands';
import type { NodeId } from '@chronovirt/contracts/ids';
import { SKEW_MS_AGREED, SKEW_MS_MAX } from './presence.ts';

/** Heartbeats come every 4 s; five missed ones are a silence. Milliseconds. */
export const SILENT_AFTER_MS = 20_000;

export class Watch {
  private readonly heardAt = new Map<NodeId, number>();
  private readonly silent = new Set<NodeId>();
  /** Whether its clock was said to differ; nothing of a node that was not heard yet: the log may say either. */
  private readonly skewed = new Map<NodeId, boolean>();

  /**
   * A node that should be heard, and what the log believes of it. To be said every second: what could not be
   * recorded is then found to differ, and told again. Of a node that is new here, silence is counted from now.
   */
  expect(nodeId: NodeId, recordedSilent: boolean, now: number): void {
    if (recordedSilent) this.silent.add(nodeId);
    else this.silent.delete(nodeId);
    if (!this.heardAt.has(nodeId)) this.heardAt.set(nodeId, now);
  }

  forget(nodeId: NodeId): void {
    this.heardAt.delete(nodeId);
    this.silent.delete(nodeId);
    this.skewed.delete(nodeId);
  }

  /** What could not be recorded. */
  failed({ type, data: { nodeId } }: PresenceCommand): void {
    if (type === 'RecordSkew') this.skewed.delete(nodeId);
  }

  /** `nodeAt` is the node's clock and `now` ours, both milliseconds since the epoch. */
  heard(nodeId: NodeId, nodeAt: number, now: number): readonly PresenceCommand[] {
    this.heardAt.set(nodeId, now);
    const skewMs = Math.round(nodeAt - now);
    const commands: PresenceCommand[] = [];
    if (this.silent.delete(nodeId)) commands.push({ type: 'RecordReturn', data: { nodeId } });
    const said = this.skewed.get(nodeId);
    // Between the two bounds nothing changes, here as in the decider: else what is said once might be lost on it.
    const differs = Math.abs(skewMs) > SKEW_MS_MAX ? true : Math.abs(skewMs) < SKEW_MS_AGREED ? false : said;
    if (differs !== undefined && differs !== said) {
      this.skewed.set(nodeId, differs);
      commands.push({ type: 'RecordSkew', data: { nodeId, skewMs } });
    }
    return commands;
  }

  /** To be asked every second. */
  overdue(now: number): readonly PresenceCommand[] {
    const commands: PresenceCommand[] = [];
    for (const [nodeId, at] of this.heardAt) {
      if (now - at < SILENT_AFTER_MS || this.silent.has(nodeId)) continue;
      this.silent.add(nodeId);
      commands.push({ type: 'RecordSilence', data: { nodeId, silentSince: isoOf(at) } });
    }
    return commands;
  }
}

const isoOf = (milliseconds: number): string => new Date(milliseconds).toISOString();
