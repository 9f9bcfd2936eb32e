/* What start says: one line for each thing it did, with the time it took. */
const startedMs = performance.now();

export const say = (text: string): void => console.log(`chronovirt: ${text}`);
export const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
export const sinceStart = (): string => seconds(performance.now() - startedMs);

/** Does something and says afterwards how long it took; silent when it was nothing. */
export async function timed<T>(what: string, work: () => Promise<T>): Promise<T> {
  const beganMs = performance.now();
  const result = await work();
  say(`${what} (${seconds(performance.now() - beganMs)})`);
  return result;
}
