import { describe, expect, it } from 'vitest';
import { inWords, problemOf, statusOfCode } from './problem.ts';

describe('the status of a refusal', () => {
  it.each([
    ['vm.busy', 409], ['vm.not_found', 404], ['network.not_found', 404], ['image.unknown', 422], ['node.unknown', 422], ['placement.no_host', 409], ['idempotency.key_reused', 409],
    ['auth.token_revoked', 401], ['join_token.expired', 401], ['vm.not_running', 409], ['subnet.exhausted', 409], ['image.needs_more_disk', 422], ['request.too_large', 413], ['gateway.unavailable', 503],
  ])('%s is %i', (code, status) => { expect(statusOfCode(code)).toBe(status); });
});

describe('a problem', () => {
  it('names the field that its receiver named', () => {
    expect(problemOf('image.unknown', { because: { image: 'nope', field: 'image' } })).toMatchObject({ status: 422, detail: 'There is no image nope.', errors: [{ path: 'body.image', code: 'image.unknown' }] });
  });
  it('says why every node was turned down, up to five', () => {
    expect(inWords('placement.no_host', { a: 'red: is full', b: 'blue: is silent' })).toBe('No node can take it: red: is full; blue: is silent.');
    expect(inWords('placement.no_host', Object.fromEntries(Array.from({ length: 9 }, (_, index) => [`n${String(index)}`, 'full'])))).toMatch(/; and 4 more\.$/);
  });
  it('has words for codes that nobody foresaw', () => {
    expect(inWords('disk.in_use', { hint: 'stop it first' })).toBe('disk in use: stop it first');
    expect(inWords('disk.in_use', null)).toBe('disk in use');
  });
});
