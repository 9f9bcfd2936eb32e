/*
 * Gathers what is asked for while an earlier call is under way into one next call. Under load a round trip
 * and a commit are then shared by many; one alone waits for nobody.
 *
 * With `beside`, many that wait are halved, and the halves take turns: while Postgres works on one, this
 * process prepares the other, and neither core waits. That pays only while a call is quick. Where each
 * commit waits long for its disk, sharing it among all is worth more, and one call goes at a time.
 */
interface Waiting<T, R> {
  readonly item: T;
  readonly resolve: (result: R) => void;
  readonly reject: (error: unknown) => void;
}

/** What one item came to, when the others of its call came to something else. */
export type Gathered<R> = { readonly result: R } | { readonly error: unknown };

/** More wait than may: whoever asked should be told to come again later. */
export class Overloaded extends Error {
  override readonly name = 'Overloaded';
}

export interface GatherLimits {
  readonly groupMax: number;
  readonly callsMax: number;
  readonly waitingMax: number;
  /** A further call begins only for so many, and only while calls take less than this, in milliseconds. */
  readonly beside?: { readonly itemsMin: number; readonly callMsMax: number };
}

/** What must stay in order: an item waits while another of its key is in a call. Undefined: it depends on nothing. */
type KeyOf<T> = (item: T) => string | undefined;

export class Gather<T, R> {
  private readonly waiting: Waiting<T, R>[] = [];
  private calls = 0;
  /** A call is about to take what waits. */
  private scheduled = false;
  private readonly call: (items: readonly T[]) => Promise<readonly Gathered<R>[]>;
  private readonly limits: GatherLimits;
  private readonly keyOf: KeyOf<T>;
  private readonly busy = new Set<string>();
  /** How long calls took of late: a mean that forgets. */
  private callMs = 0;

  /** `call` answers for each item, in order; when it throws, all of them fail. */
  constructor(call: (items: readonly T[]) => Promise<readonly Gathered<R>[]>, limits: GatherLimits, keyOf: KeyOf<T> = () => undefined) {
    this.call = call;
    this.keyOf = keyOf;
    this.limits = limits;
  }

  add(item: T): Promise<R> {
    if (this.waiting.length >= this.limits.waitingMax) return Promise.reject(new Overloaded(`${String(this.waiting.length)} wait for Postgres already`));
    return new Promise<R>((resolve, reject) => {
      this.waiting.push({ item, resolve, reject });
      this.next();
    });
  }

  /** How many wait for the next call. */
  get size(): number {
    return this.waiting.length;
  }

  private next(): void {
    const { callsMax, beside } = this.limits;
    if (this.scheduled || this.calls >= callsMax || this.waiting.length === 0) return;
    if (beside !== undefined && this.calls > 0 && !(this.waiting.length >= beside.itemsMin && this.callMs < beside.callMsMax)) return;
    this.scheduled = true;
    // After the callbacks that are due now: what they ask for still comes along.
    setImmediate(() => void this.run());
  }

  private take(): readonly Waiting<T, R>[] {
    const { groupMax, beside } = this.limits;
    const halved = beside !== undefined && this.calls === 0 && this.waiting.length >= 2 * beside.itemsMin && this.callMs < beside.callMsMax;
    const most = Math.min(groupMax, halved ? Math.ceil(this.waiting.length / 2) : this.waiting.length);
    if (this.busy.size === 0) return this.waiting.splice(0, most);
    const taken: Waiting<T, R>[] = [];
    const left: Waiting<T, R>[] = [];
    for (const one of this.waiting) {
      const key = this.keyOf(one.item);
      if (taken.length < most && (key === undefined || !this.busy.has(key))) taken.push(one);
      else left.push(one);
    }
    this.waiting.splice(0, this.waiting.length, ...left);
    return taken;
  }

  private async run(): Promise<void> {
    const group = this.take();
    this.scheduled = false;
    // All that wait are waiting for a call that is under way: its end looks again.
    if (group.length === 0) return;
    this.calls += 1;
    const keys = new Set(group.map(({ item }) => this.keyOf(item)).filter((key) => key !== undefined));
    if (this.limits.callsMax > 1) for (const key of keys) this.busy.add(key);
    this.next();
    const startedAt = performance.now();
    try {
      const results = await this.call(group.map(({ item }) => item));
      group.forEach(({ resolve, reject }, index) => {
        const one = results[index];
        if (one === undefined) reject(new Error('a gathered call did not answer for every item'));
        else if ('error' in one) reject(one.error);
        else resolve(one.result);
      });
    } catch (error) {
      for (const { reject } of group) reject(error);
    } finally {
      this.callMs = this.callMs * 0.9 + (performance.now() - startedAt) * 0.1;
      this.calls -= 1;
      for (const key of keys) this.busy.delete(key);
      this.next();
    }
  }
}
