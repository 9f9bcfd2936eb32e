import type { Duplex } from 'node:stream';
import { Disconnected } from './errors.ts';
import type { CloseReason } from './errors.ts';

export interface OpenOptions {
  readonly signal: AbortSignal;
  readonly readOnly: boolean;
  /** What the signal's time limit is, for words. */
  readonly timeoutMs: number;
}

/** One outcome, and no listener left behind. The socket that `begin` returns is destroyed in every case but success. */
export function settled<Value>(
  where: string,
  signal: AbortSignal,
  timeoutMs: number,
  begin: (resolve: (value: Value) => void, reject: (reason: CloseReason) => void) => Duplex,
): Promise<Value> {
  return new Promise((resolve, reject) => {
    let over = false;
    const finish = (then: () => void) => {
      if (over) return;
      over = true;
      signal.removeEventListener('abort', onAbort);
      then();
    };
    const fail = (reason: CloseReason) =>
      finish(() => {
        // Its end may bring one more error.
        socket.on('error', () => {});
        socket.destroy();
        reject(new Disconnected('connect', false, reason));
      });
    const onAbort = () => fail({ kind: 'socketError', message: `${where} was not reached within ${timeoutMs} ms`, cause: signal.reason });
    const socket = begin((value) => finish(() => resolve(value)), fail);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
}
