/**
 * Runs tasks of one key one after another, tasks of different keys side by side. 200 leases on one subnet
 * then wait for each other here, instead of racing for the stream's next version.
 */
export class Mailbox {
  private readonly tails = new Map<string, Promise<unknown>>();

  run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const before = this.tails.get(key);
    const mine = before === undefined ? task() : before.then(task, task);
    this.tails.set(key, mine);
    const forget = (): void => {
      if (this.tails.get(key) === mine) this.tails.delete(key);
    };
    mine.then(forget, forget);
    return mine;
  }

  /** Keys with something under way. */
  get size(): number {
    return this.tails.size;
  }
}
