/*
 * A process that can be killed. Everything that a process does to the world goes through one of its steps,
 * and a step is where it may stand still or die: then the promise is never settled, and whatever waited for
 * it never goes on, as if the power had been cut there. What was appended or sent before that stays so.
 */
import type { EventLog } from '@chronovirt/event-log/log';
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

  /** The log as this process reaches it: what it reads may be old when it arrives, and an append may be the last thing it did. */
  logOf(life: Life, log: EventLog): EventLog {
    const before = <T>(where: string, work: () => Promise<T>): Promise<T> => this.step(life, where).then(work);
    const around = <T>(where: string, work: () => Promise<T>): Promise<T> =>
      before(`before ${where}`, work).then((outcome) => this.step(life, `after ${where}`).then(() => outcome));
    return {
      load: (stream, decider) => before('load', () => log.load(stream, decider)),
      append: (append) => around(`append to ${append.stream}`, () => log.append(append)),
      answer: (commandId, answer, meta, requestHash) => around('answer', () => log.answer(commandId, answer, meta, requestHash)),
      answered: (commandId) => before('answered', () => log.answered(commandId)),
      read: (after, limit) => before('read', () => log.read(after, limit)),
      head: () => before('head', () => log.head()),
    };
  }
}
