/** A service that was started: closing it waits, bounded, for what is under way. */
export interface Running {
  close(): Promise<void>;
}

/**
 * The life of a service's process: starts it, closes it at SIGTERM or SIGINT, and dies of what nobody caught:
 * wrong state that lives on costs more than a restart.
 */
export const runService = async (start: () => Promise<Running>): Promise<void> => {
  const running = await Promise.resolve().then(start).catch((error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  });
  let closing = false;
  const close = (): void => {
    if (closing) return;
    closing = true;
    setTimeout(() => process.exit(1), 15_000).unref();
    running.close().then(() => process.exit(0), () => process.exit(1));
  };
  process.on('SIGTERM', close);
  process.on('SIGINT', close);
};
