/*
 * Sends again what was accepted and not answered, each second, while this process leads.
 *
 * A command is done with when its receiver's answer is in the log, whatever that says. Between two sendings
 * of one command the pause doubles up to half a minute: a receiver that is away finds its commands in the
 * stream anyway, and one whose stream was wiped needs each only once.
 */
import { CommandEnvelope } from '@chronovirt/contracts/command';
import type { Log } from '@chronovirt/observability/log';
import type { Views } from '../views.store.ts';

export interface OwedCommandsParts {
  readonly views: Views;
  readonly publish: (envelope: CommandEnvelope) => Promise<boolean>;
  readonly log: Log;
  readonly now: () => number;
}

const AT_ONCE_MAX = 500;
const AGAIN_FIRST_MS = 2_000;
const AGAIN_MAX_MS = 30_000;

export class OwedCommands {
  private readonly parts: OwedCommandsParts;
  private sent = new Map<string, { readonly at: number; readonly pauseMs: number }>();

  constructor(parts: OwedCommandsParts) {
    this.parts = parts;
  }

  /** One look: sends what is due, and returns how many are owed still. */
  async send(): Promise<number> {
    const { views, publish, log, now } = this.parts;
    const owed = await views.owedCommands(AT_ONCE_MAX);
    const still = new Map<string, { readonly at: number; readonly pauseMs: number }>();
    for (const each of owed) {
      const envelope = CommandEnvelope.parse(each);
      const before = this.sent.get(envelope.id);
      if (before !== undefined && now() < before.at + before.pauseMs) {
        still.set(envelope.id, before);
        continue;
      }
      still.set(envelope.id, { at: now(), pauseMs: before === undefined ? AGAIN_FIRST_MS : Math.min(AGAIN_MAX_MS, before.pauseMs * 2) });
      const taken = await publish(envelope);
      if (before !== undefined || !taken) log.info({ commandId: envelope.id, type: envelope.type, to: envelope.to, taken }, 'owed command sent again');
    }
    this.sent = still;
    return owed.length;
  }
}
