/* Whether the platform runs, asked of itself. */
import type { Home } from './home.ts';
import { tell } from './keeper-client.ts';
import { AGENT } from './services.ts';

/** Every part runs and answers: then there is nothing to do. */
export async function runsAlready(home: Home, port: number): Promise<boolean> {
  const answer = await tell(home, { do: 'list' });
  const running = new Set(answer?.parts.filter((part) => part.state === 'running').map((part) => part.name));
  if (!['postgres', 'nats', AGENT].every((name) => running.has(name))) return false;
  return isReady(port);
}

/** Whether /readyz of this port of 127.0.0.1 says yes. */
export const isReady = async (port: number): Promise<boolean> => {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/readyz`, { signal: AbortSignal.timeout(2_000) });
    await response.arrayBuffer();
    return response.ok;
  } catch {
    return false;
  }
};
