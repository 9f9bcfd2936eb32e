/** Someone waits until it rings, or until his time is up. A ring before the wait is not lost. */
export class Bell {
  private rung = false;
  private readonly waiting = new Set<() => void>();

  ring(): void {
    this.rung = true;
    for (const wake of [...this.waiting]) wake();
  }

  /** Forgets a ring that nobody waited for. */
  hush(): void {
    this.rung = false;
  }

  /** Returns at once if it rang since the last wait. */
  async wait(ms?: number): Promise<void> {
    if (!this.rung) {
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          clearTimeout(timer);
          this.waiting.delete(wake);
          resolve();
        };
        const timer = ms === undefined ? undefined : setTimeout(wake, ms);
        this.waiting.add(wake);
      });
    }
    this.rung = false;
  }
}
