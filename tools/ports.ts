import { randomInt } from 'node:crypto';
import { connect, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/*
 * Ports of our own lie below the range from which Linux takes the ports of outgoing
 * connections (32768 and up by default), or one of those could sit on ours at the next start.
 */
const FIRST = 20_000;
const LAST = 32_000;

/** Whether something could listen on this port of 127.0.0.1 now. */
export const isFree = (port: number, host = '127.0.0.1'): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });

/** A program that was killed a moment ago may hold its port until the kernel has taken it apart. Milliseconds. */
const LET_GO_MS = 1_000;

/** The port that was used the last time, or another one where a stranger has taken it since. */
export async function lastOrFreePort(last: number | undefined): Promise<number> {
  if (last === undefined || last <= 0) return freePort();
  for (const until = Date.now() + LET_GO_MS; ;) {
    if (await isFree(last)) return last;
    if (Date.now() >= until) return freePort();
    await sleep(20);
  }
}

export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = randomInt(FIRST, LAST);
    if (await isFree(port)) return port;
  }
  throw new Error(`found no free port between ${FIRST} and ${LAST} on 127.0.0.1`);
}

/** Whether something accepts connections there; `greeting` waits for its first bytes and looks at them. */
export const answers = (port: number, greeting?: (text: string) => boolean, host = '127.0.0.1'): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ port, host });
    const end = (yes: boolean): void => {
      socket.destroy();
      resolve(yes);
    };
    socket.setTimeout(1_000, () => end(false));
    socket.once('error', () => end(false));
    if (greeting) socket.once('data', (bytes) => end(greeting(bytes.toString('utf8'))));
    else socket.once('connect', () => end(true));
  });
