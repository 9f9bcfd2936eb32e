/* Whether the platform runs, asked of itself. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Home } from './home.ts';
import { tell } from './keeper-client.ts';
import { writeWhole } from './secrets.ts';
import { AGENT } from './services.ts';

/** The API's port of what runs, whatever CV_PORT says now; undefined when no start got so far. */
export function portInUse(home: Home): number | undefined {
  try {
    const { port } = JSON.parse(readFileSync(settingsFile(home), 'utf8')) as { port: number };
    return port;
  } catch {
    return undefined;
  }
}

export const rememberPort = (home: Home, port: number): void => writeWhole(settingsFile(home), JSON.stringify({ port }));

const settingsFile = (home: Home): string => join(home.run, 'settings.json');

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
