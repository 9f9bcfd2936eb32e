/*
 * Who calls. A token is `cv_<installation>_<43 characters>`: the middle names the installation that made it,
 * so that a token pasted from elsewhere is told apart from one that never existed. Only its SHA-256 is known
 * here, and it is looked up by that: comparing hashes leaks no time that helps to guess a token.
 */

const FORM = /^cv_([0-9a-f]{8})_([A-Za-z0-9_-]{43})$/;

export type Presented = { readonly kind: 'token'; readonly token: string } | { readonly kind: 'refused'; readonly code: string; readonly detail: string };

/** What an Authorization header presents to this installation. */
export const presented = (authorization: string | undefined, installation: string): Presented => {
  if (authorization === undefined || authorization === '') return { kind: 'refused', code: 'auth.token_missing', detail: 'Send the header "Authorization: Bearer <token>".' };
  const token = /^bearer +([^\s]+)$/i.exec(authorization)?.[1];
  const parts = token === undefined ? null : FORM.exec(token);
  if (token === undefined || parts === null) return { kind: 'refused', code: 'auth.token_malformed', detail: 'This is no token of Chronovirt: they look like cv_<installation>_<43 characters>.' };
  if (parts[1] !== installation) {
    return { kind: 'refused', code: 'auth.token_of_another_installation', detail: `This token was made by installation ${String(parts[1])}; this is ${installation}.` };
  }
  return { kind: 'token', token };
};

/** A new token from 32 random bytes in base64url. */
export const tokenFrom = (installation: string, random: string): string => `cv_${installation}_${random}`;
