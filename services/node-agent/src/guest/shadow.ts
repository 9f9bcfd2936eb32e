/* The file with the passwords of a Unix system (shadow(5)), as somebody else's text: only the line that is meant is touched. */

/** Milliseconds. */
const DAY_MS = 86_400_000;

/**
 * The text with another password for this user, set at `atMs` (Unix, milliseconds); undefined where there is no such user.
 * What else the line says stays: ages, expiry. A lock, which is a mark before the old password, is gone, as after passwd(1).
 *
 * @param hashed as crypt(5) writes it
 */
export function withPassword(shadow: string, user: string, hashed: string, atMs: number): string | undefined {
  const lines = shadow.split('\n');
  const at = lines.findIndex((line) => line.startsWith(`${user}:`));
  const [name, , , ...rest] = lines[at]?.split(':') ?? [];
  if (name === undefined) return undefined;
  return lines.with(at, [name, hashed, String(Math.floor(atMs / DAY_MS)), ...rest].join(':')).join('\n');
}
