/*
 * Gathers what is asked for while an earlier call is under way into one next call. Under load a round trip
 * and a commit are then shared by many; one alone waits for nobody.
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

export class Gather<T, R> {
  private readonly waiting: Waiting<T, R>[] = [];
  private calls = 0;
  private readonly call: (items: readonly T[]) => Promise<readonly Gathered<R>[]>;
  private readonly limits: { readonly groupMax: number; readonly callsMax: number; readonly waitingMax: number };

  /** `call` answers for each item, in order; when it throws, all of them fail. */
  constructor(call: (items: readonly T[]) => Promise<readonly Gathered<R>[]>, limits: { readonly groupMax: number; readonly callsMax: number; readonly waitingMax: number }) {
    this.call = call;
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
    if (this.calls >= this.limits.callsMax || this.waiting.length === 0) return;
    this.calls += 1;
    // After the callbacks that are due now: what they ask for still comes along.
    setImmediate(() => void this.run());
  }

  private async run(): Promise<void> {
    const group = this.waiting.splice(0, this.limits.groupMax);
    try {
      const results = group.length === 0 ? [] : await this.call(group.map(({ item }) => item));
      group.forEach(({ resolve, reject }, index) => {
        const one = results[index];
        if (one === undefined) reject(new Error('a gathered call did not answer for every item'));
        else if ('error' in one) reject(one.error);
        else resolve(one.result);
      });
    } catch (error) {
      for (const { reject } of group) reject(error);
    } finally {
      this.calls -= 1;
      this.next();
    }
  }
}
