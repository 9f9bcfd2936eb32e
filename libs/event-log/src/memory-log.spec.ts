import { event } from '@chronovirt/contracts/event';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { MemoryLog } from './memory-log.ts';
import { promisesOfALog } from './testing-log.ts';

const log = new MemoryLog(() => 0);
promisesOfALog('memory', () => log);

describe('a log in memory that knows shapes', () => {
  const wishes = new MemoryLog(() => 0, {}, { Wished: event(z.object({ what: z.record(z.string(), z.json()) })) });
  const append = (type: string, data: object) => wishes.append({ commandId: '00000000-0000-8000-8000-000000000001', stream: 'wish-1', expected: 0, events: [{ type, data }], answer: { version: 1 }, meta: { actor: 'spec', commandId: 'c', causedBy: null } as never });
  it('refuses what Postgres would', async () => {
    await expect(async () => append('Wished', { what: { fetchBytes: undefined } })).rejects.toThrow();
    await expect(async () => append('Hoped', {})).rejects.toThrow('no event that may be written');
    expect(await append('Wished', { what: { size: 1 } })).toMatchObject({ kind: 'appended' });
  });
});
