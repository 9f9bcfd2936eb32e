/*
 * Virtual time. Whatever waits in the simulation waits in one queue, ordered by time and then by the order in
 * which it was put there; time jumps from one entry to the next. The code under test is asynchronous, but it
 * waits for nothing except promises that this queue settles. So between two entries it is enough to let
 * every promise run dry, and the whole run is a function of its seed.
 *
 * Running dry is what `process.nextTick` does: Node takes the next tick only when no microtask is left. It
 * costs a fraction of a microsecond, where a turn of the event loop (setImmediate) costs some ten times as
 * much, and thousands of runs must fit into a minute.
 */
import { Random } from './random.ts';

interface Entry {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

/** Some fifty times what a run takes. */
const STEPS_MAX = 300_000;

/** 2026-01-01T00:00:00Z: recorded times look like times. */
const EPOCH_MS = 1_767_225_600_000;

export class World {
  readonly seed: number;
  readonly random: Random;
  /** What happened, for people; undefined: nobody reads along, and nothing is kept. */
  readonly story: string[] | undefined;
  private readonly queue: Entry[] = [];
  private order = 0;
  private time = 0;
  private steps = 0;

  constructor(seed: number, { told = false } = {}) {
    this.seed = seed;
    this.random = new Random(seed);
    this.story = told ? [] : undefined;
  }

  /** Milliseconds since the run began. */
  get elapsed(): number {
    return this.time;
  }

  /** Milliseconds since the Unix epoch. */
  readonly now = (): number => EPOCH_MS + this.time;

  tell(sentence: () => string): void {
    this.story?.push(`${(this.time / 1_000).toFixed(3).padStart(9)} s  ${sentence()}`);
  }

  /** Runs something after this many milliseconds. */
  after(ms: number, run: () => void): void {
    const entry = { at: this.time + ms, order: this.order++, run };
    const { queue } = this;
    let index = queue.length;
    queue.push(entry);
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = queue[parent];
      if (above === undefined || !isBefore(entry, above)) break;
      queue[index] = above;
      index = parent;
    }
    queue[index] = entry;
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => { this.after(ms, resolve); });
  }

  /** Runs again and again until `on` says no. */
  every(ms: number, on: () => boolean, run: () => void): void {
    const again = (): void => {
      if (!on()) return;
      run();
      this.after(ms, again);
    };
    this.after(this.random.between(1, ms), again);
  }

  /** Lets time pass until `done`, or until `elapsed` has reached `untilMs`. True when it is done. */
  run(done: () => boolean, untilMs: number): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const step = (): void => {
        try {
          if (done()) return resolve(true);
          const next = this.queue[0];
          if (next === undefined || next.at > untilMs) {
            this.time = Math.max(this.time, untilMs);
            return resolve(false);
          }
          if (++this.steps > STEPS_MAX) throw new Error(`${String(STEPS_MAX)} steps, and only ${String(this.time)} ms have passed: something goes round in circles`);
          this.take();
          this.time = next.at;
          next.run();
        } catch (error) {
          return reject(error instanceof Error ? error : new Error(String(error)));
        }
        queueMicrotask(dry);
      };
      // A tick asked for by a tick comes before any promise; asked for by a promise, it comes after all of them.
      const dry = (): void => { process.nextTick(step); };
      queueMicrotask(dry);
    });
  }

  private take(): void {
    const { queue } = this;
    const last = queue.pop();
    if (last === undefined || queue.length === 0) return;
    let index = 0;
    for (;;) {
      const left = 2 * index + 1;
      const leftEntry = queue[left];
      if (leftEntry === undefined) break;
      const rightEntry = queue[left + 1];
      const [child, entry] = rightEntry !== undefined && isBefore(rightEntry, leftEntry) ? [left + 1, rightEntry] as const : [left, leftEntry] as const;
      if (!isBefore(entry, last)) break;
      queue[index] = entry;
      index = child;
    }
    queue[index] = last;
  }
}

const isBefore = (a: Entry, b: Entry): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);
