/*
 * A process that can be killed. Everything that a process does to the world goes through one of its steps,
 * and a step is where it may stand still or die: then the promise is never settled, and whatever waited for
 * it never goes on, as if the power had been cut there. What was appended or sent before that stays so.
 */
import type { Decider } from '@chronovirt/decider/decider';
import type { EventLog, Loading } from '@chronovirt/event-log/log';
import type { Weather } from './weather.ts';
import type { World } from './world.ts';

/** What a dead process waits for. */
export const never = new Promise<never>(() => undefined);

export interface Life {
  /** False for ever once this life is over; the next boot begins another. */
  on: boolean;
}

export abstract class Program {
  readonly name: string;
  protected readonly world: World;
  /** The faults of now: calm before and after the storm. */
  protected readonly weather: () => Weather;
  life: Life = { on: false };

  constructor(name: string, world: World, weather: () => Weather) {
    this.name = name;
    this.world = world;
    this.weather = weather;
  }

  get on(): boolean {
    return this.life.on;
  }

  boot(): void {
    if (this.life.on) return;
    this.life = { on: true };
    this.world.tell(() => `${this.name} starts`);
    this.begin(this.life);
  }

  kill(why: string): void {
    if (!this.life.on) return;
    this.life.on = false;
    this.world.tell(() => `${this.name} is killed: ${why}`);
    this.ended();
  }

  protected abstract begin(life: Life): void;
  protected ended(): void { /* nothing held outside */ }

  /** Time passes, or everything ends here. */
  step(life: Life, where: string): Promise<void> {
    if (!life.on) return never;
    const { random } = this.world;
    const weather = this.weather();
    if (random.chance(weather.serviceKilled)) {
      this.kill(where);
      this.world.after(random.between(100, 8_000), () => { this.boot(); });
      return never;
    }
    const ms = random.chance(weather.frozen) ? random.between(1, weather.frozenMs) : random.between(0, 2);
    if (ms > 2) this.world.tell(() => `${this.name} stands still for ${String(ms)} ms: ${where}`);
    return new Promise((resolve) => { this.world.after(ms, () => { if (life.on) resolve(); }); });
  }

  /**
   * The log as this process reaches it: what it reads may be old when it arrives, an append may be the last
   * thing it did, and a state that it has seen within the last second it may take for today's (postgres-log.ts
   * does so; an append notices).
   */
  logOf(life: Life, log: EventLog, isAway: () => boolean): EventLog {
    const kept = new Map<string, Kept>();
    const { random } = this.world;
    const mayFail = (where: string): void => {
      if (isAway() || random.chance(this.weather().logFailing)) throw new Error(`the log did not answer: ${where}`);
    };
    const before = async <T>(where: string, work: () => Promise<T>): Promise<T> => {
      await this.step(life, where);
      mayFail(where);
      return work();
    };
    const around = async <T>(where: string, work: () => Promise<T>): Promise<T> => {
      const outcome = await before(`before ${where}`, work);
      await this.step(life, `after ${where}`);
      // What was committed is committed, whether or not one hears of it.
      mayFail(`after ${where}`);
      return outcome;
    };
    const keep = (stream: string, now: Omit<Kept, 'trustedUntil'>): void => {
      if ((kept.get(stream)?.version ?? -1) <= now.version) kept.set(stream, { ...now, trustedUntil: this.world.elapsed + TRUSTED_MS });
    };
    return {
      load: async <C, E, S>(stream: string, decider: Decider<C, E, S>, how: Loading = 'kept') => {
        const known = kept.get(stream);
        const same = known?.decider === (decider as unknown as Kept['decider']);
        if (known !== undefined && same && how !== 'fresh' && this.world.elapsed < known.trustedUntil) return { state: known.state as S, version: known.version };
        if (known === undefined && how === 'new') return { state: decider.initial, version: 0 };
        const loaded = await before('load', () => log.load(stream, decider));
        keep(stream, { decider: decider, ...loaded });
        return loaded;
      },
      since: (stream, version) => before('since', () => log.since(stream, version)),
      written: (event) => log.written(event),
      append: async (append) => {
        const outcome = await around(`append to ${append.stream}`, () => log.append(append));
        const known = kept.get(append.stream);
        if (known === undefined) return outcome;
        if (outcome.kind === 'conflict') kept.set(append.stream, { ...known, trustedUntil: 0 });
        if (outcome.kind === 'appended' && known.version === append.expected) {
          keep(append.stream, { ...known, state: outcome.events.reduce<unknown>((state, event) => known.decider.evolve(state, event), known.state), version: append.expected + outcome.events.length });
        }
        return outcome;
      },
      answer: (commandId, answer, meta, requestHash) => around('answer', () => log.answer(commandId, answer, meta, requestHash)),
      answered: (commandId) => before('answered', () => log.answered(commandId)),
      read: (after, limit) => before('read', () => log.read(after, limit)),
      head: () => before('head', () => log.head()),
    };
  }
}

/** As in postgres-log.ts. */
const TRUSTED_MS = 1_000;

interface Kept {
  readonly decider: Decider<never, unknown, unknown>;
  readonly state: unknown;
  readonly version: number;
  readonly trustedUntil: number;
}
