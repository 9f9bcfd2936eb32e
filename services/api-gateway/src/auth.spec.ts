import { describe, expect, it } from 'vitest';
import { presented, tokenFrom } from './auth.ts';

const token = tokenFrom('0a1b2c3d', 'x'.repeat(43));

describe('a presented token', () => {
  it.each([
    [undefined, 'auth.token_missing'],
    ['', 'auth.token_missing'],
    ['Bearer', 'auth.token_malformed'],
    [token, 'auth.token_malformed'],
    [`Basic ${token}`, 'auth.token_malformed'],
    [`Bearer ${token}x`, 'auth.token_malformed'],
    [`Bearer ${token} ${token}`, 'auth.token_malformed'],
    [`Bearer ${token.replace('0a1b2c3d', 'ffffffff')}`, 'auth.token_of_another_installation'],
  ])('%s is %s', (header, code) => { expect(presented(header, '0a1b2c3d')).toMatchObject({ kind: 'refused', code }); });

  it.each([`Bearer ${token}`, `bearer ${token}`, `BEARER   ${token}`])('%s is taken', (header) => { expect(presented(header, '0a1b2c3d')).toEqual({ kind: 'token', token }); });
});
