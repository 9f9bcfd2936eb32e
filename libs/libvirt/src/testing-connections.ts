/** What specs that talk to a real daemon have in common. */
import { setTimeout as delay } from 'node:timers/promises';
import { connect } from './connection.ts';
import type { ConnectOptions, Libvirt } from './connection.ts';
import type { EventStream, Gap } from './events.ts';
import type { Target } from './target.ts';

/** Connections that are closed together. */
export interface Connections {
  reach(target: Target, options?: ConnectOptions): Promise<Libvirt>;
  closeAll(): Promise<void>;
}

export function connections(): Connections {
  const opened: Libvirt[] = [];
  return {
    reach: async (target, options) => {
      const libvirt = await connect(target, options);
      opened.push(libvirt);
      return libvirt;
    },
    closeAll: async () => {
      await Promise.all(opened.splice(0).map((libvirt) => libvirt.close()));
    },
  };
}

/** Reads events until `done`; a gap is a failure. */
export async function collect<E>(stream: EventStream<E>, done: (events: readonly E[]) => boolean): Promise<E[]> {
  const events: E[] = [];
  for await (const event of stream) {
    if ((event as Gap).kind === 'gap') throw new Error(`events are missing: ${JSON.stringify(event)}`);
    events.push(event as E);
    if (done(events)) break;
  }
  return events;
}

/** Asks again and again until the answer is not `undefined` nor false. */
export async function eventually<T>(ask: () => T | Promise<T>, msMax = 20_000): Promise<Exclude<T, undefined | false>> {
  const deadline = Date.now() + msMax;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer as Exclude<T, undefined | false>;
    if (Date.now() > deadline) throw new Error(`not so within ${msMax} ms`);
    await delay(20);
  }
}

/** What became of each: the error it failed with, or `undefined`. */
export async function failures(calls: readonly Promise<unknown>[]): Promise<unknown[]> {
  return (await Promise.allSettled(calls)).map((outcome) => (outcome.status === 'rejected' ? (outcome.reason as unknown) : undefined));
}
