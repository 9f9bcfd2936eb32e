import { randomInt } from 'node:crypto';
import { SetPasswordBody } from '@chronovirt/contracts/vm/guest';
import { describe, expect, it } from 'vitest';
import { madePassword } from './password.ts';

describe('A password that was made', () => {
  it('is another one each time, and one that would be taken', () => {
    const many = Array.from({ length: 500 }, () => madePassword(randomInt));
    expect(new Set(many).size).toBe(500);
    for (const password of many) {
      expect(password).toMatch(/^(?=.*[a-z])(?=.*[A-Z])(?=.*\d)[a-zA-Z2-9]{20}$/);
      expect(SetPasswordBody.safeParse({ user: 'root', password }).success).toBe(true);
    }
  });
});
