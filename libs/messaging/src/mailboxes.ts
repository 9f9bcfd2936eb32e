/*
 * Work that shares a key is done one after another, in the order it came; the rest side by
 * side, at most `concurrency` at once. So 200 leases of one subnet do not race each other, and
 * a slow subnet holds up nobody else.
 *
 * A key exists as long as it has work. What waits is bounded by whoever hands it in.
 */
export interface Mailboxes {
  /** Runs `work` when its turn comes. `work` must not reject. */
  post(key: string, work: () => Promise<void>): void;
  /** Work that has not begun is taken out, and each piece's `abandoned` is for the caller to think of. */
  abandon(): number;
  readonly running: number;
  readonly waiting: number;
  /** Resolves when nothing runs and nothing waits. */
  idle(): Promise<void>;
}

interface Box {
  readonly waiting: (() => Promise<void>)[];
}

export function createMailboxes(concurrency: number): Mailboxes {
  const boxes = new Map<string, Box>();
  /** Keys with work whose turn has come, in order; each at most once, and none that runs. */
  let ready: string[] = [];
  let head = 0;
  let running = 0;
  let waiting = 0;
  let idleListeners: (() => void)[] = [];

  const next = (): string | undefined => {
    if (head === ready.length) return undefined;
    const key = ready[head++];
    if (head === ready.length || head > 1024) {
      ready = ready.slice(head);
      head = 0;
    }
    return key;
  };

  const pump = (): void => {
    while (running < concurrency) {
      const key = next();
      if (key === undefined) break;
      const box = boxes.get(key);
      const work = box?.waiting.shift();
      if (box === undefined || work === undefined) {
        boxes.delete(key);
        continue;
      }
      running++;
      waiting--;
      void work().finally(() => {
        running--;
        if (box.waiting.length > 0) ready.push(key);
        else boxes.delete(key);
        pump();
      });
    }
    if (running === 0 && waiting === 0) {
      const listeners = idleListeners;
      idleListeners = [];
      for (const listener of listeners) listener();
    }
  };

  return {
    post: (key, work) => {
      waiting++;
      const box = boxes.get(key);
      if (box !== undefined) {
        box.waiting.push(work);
        return;
      }
      boxes.set(key, { waiting: [work] });
      ready.push(key);
      pump();
    },
    abandon: () => {
      const abandoned = waiting;
      for (const box of boxes.values()) box.waiting.length = 0;
      waiting = 0;
      pump();
      return abandoned;
    },
    get running() { return running; },
    get waiting() { return waiting; },
    idle: () => (running === 0 && waiting === 0 ? Promise.resolve() : new Promise((resolve) => { idleListeners.push(resolve); })),
  };
}
