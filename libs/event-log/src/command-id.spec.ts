import { validate, version } from 'uuid';
import { describe, expect, it } from 'vitest';
import { commandIdOf, eventIdOf, newCommandId, requestHashOf } from './command-id.ts';

describe('ids of commands', () => {
  it('are the same for the same key, for ever', () => {
    expect(commandIdOf('user_1:key')).toBe('74b47360-1c21-81e2-a4ee-c498d6b272c5');
  });

  it('are UUIDs of version 8 from a key, of version 7 without', () => {
    for (let number = 0; number < 200; number++) {
      const id = commandIdOf(`key ${String(number)}`);
      expect(validate(id)).toBe(true);
      expect(version(id)).toBe(8);
    }
    expect(version(newCommandId())).toBe(7);
  });

  it('number the events of a command', () => {
    const command = newCommandId();
    expect(new Set([eventIdOf(command, 0), eventIdOf(command, 1), eventIdOf(newCommandId(), 0)]).size).toBe(3);
    expect(eventIdOf(command, 0)).toBe(eventIdOf(command, 0));
  });

  it('hash a request by its meaning, not by its spelling', () => {
    expect(requestHashOf({ a: 1, b: [2] })).toBe(requestHashOf({ b: [2], a: 1 }));
    expect(requestHashOf({ a: 1 })).not.toBe(requestHashOf({ a: 2 }));
    expect(requestHashOf({ a: 1 })).toMatch(/^[0-9a-f]{64}$/);
  });
});
