import { z } from 'zod';

/*
 * Postgres' jsonb refuses NUL and lone surrogates, and RFC 8785 has no bytes for them; so no string that
 * crosses a process may hold one. `text` is the only string of free form in the contracts.
 */
const wellFormed = (value: string): boolean => !value.includes('\u0000') && value.isWellFormed();

/** A string of at most `max` characters (UTF-16 units) without NUL and lone surrogates. */
export const text = (max: number) => z.string().max(max).refine(wellFormed, 'must not hold NUL or half a character');

/** A name people give: letters, digits, dot, dash and underscore, 1 to 63 characters, the first a letter or digit. */
export const Name = z
  .string()
  .regex(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/, 'must be 1 to 63 letters, digits, dots, dashes or underscores, and begin with a letter or digit');

/** Plain JSON by name, checked for what Postgres and the canonical form cannot hold. */
export const Json = z.record(z.string(), z.json()).refine((value) => everyString(value, wellFormed), 'must not hold NUL or half a character');

const everyString = (value: unknown, holds: (text: string) => boolean): boolean => {
  if (typeof value === 'string') return holds(value);
  if (Array.isArray(value)) return value.every((item) => everyString(item, holds));
  if (typeof value === 'object' && value !== null) return Object.entries(value).every(([key, item]) => holds(key) && everyString(item, holds));
  return true;
};
