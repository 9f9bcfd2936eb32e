/*
 * Time and chance of a pretend node. Both are given, so that a simulation can have its own clock and the
 * same seed gives the same run. The numbers of `chance` depend on nothing but the seed and the words asked
 * with: not on how often something was asked before. So two nodes of one seed agree, and a fault that is
 * drawn for one call does not move the faults of the others.
 */

export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
  /** Runs once after so many milliseconds. What comes back takes it back. */
  after(ms: number, run: () => void): () => void;
}

/** The machine's own. Its timers keep no process alive. */
export const wallClock: Clock = {
  now: () => Date.now(),
  after: (ms, run) => {
    const timer = setTimeout(run, ms);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** 32 bits that follow from the words alone (FNV-1a and a last mixing). */
export function hashOf(...words: readonly (string | number)[]): number {
  let hash = 0x811c_9dc5;
  for (const word of words) {
    const text = String(word);
    for (let index = 0; index < text.length; index += 1) hash = Math.imul(hash ^ text.charCodeAt(index), 0x0100_0193);
    hash = Math.imul(hash ^ 0x1f, 0x0100_0193);
  }
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x85eb_ca6b);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, 0xc2b2_ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** From 0 up to, not including, 1. */
export const chance = (...words: readonly (string | number)[]): number => hashOf(...words) / 4_294_967_296;

const hex = (value: number): string => value.toString(16).padStart(8, '0');

/** A UUID (version 4 in form) that follows from the words. */
export function uuidFrom(...words: readonly (string | number)[]): string {
  const digits = [0, 1, 2, 3].map((part) => hex(hashOf(part, ...words))).join('');
  const variant = ((Number.parseInt(digits[16] as string, 16) & 0x3) | 0x8).toString(16);
  return `${digits.slice(0, 8)}-${digits.slice(8, 12)}-4${digits.slice(13, 16)}-${variant}${digits.slice(17, 20)}-${digits.slice(20)}`;
}
