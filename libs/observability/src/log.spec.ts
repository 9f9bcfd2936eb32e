import { describe, expect, it } from 'vitest';
import { createLog, levelOf } from './log.ts';

const lines = (): { write(line: string): void; all: Record<string, unknown>[] } => {
  const all: Record<string, unknown>[] = [];
  return { all, write: (line) => { all.push(JSON.parse(line) as Record<string, unknown>); } };
};

describe('the log', () => {
  it('prints fields, the service and a level by name', () => {
    const to = lines();
    createLog({ service: 'ipam', level: 'info', to }).info({ vmId: 'vm_1' }, 'address leased');
    expect(to.all[0]).toMatchObject({ level: 'info', service: 'ipam', vmId: 'vm_1', msg: 'address leased' });
  });

  it('prints no secret field, at the top and one below', () => {
    const to = lines();
    createLog({ service: 'x', level: 'info', to }).info({ token: 'canary', node: { seed: 'canary', name: 'a' }, headers: { authorization: 'canary' } }, 'joined');
    expect(JSON.stringify(to.all)).not.toContain('canary');
    expect(to.all[0]).toMatchObject({ node: { name: 'a' } });
  });

  it('prints the chain of causes of a fault', () => {
    const to = lines();
    createLog({ service: 'x', level: 'info', to }).error({ err: new Error('could not define', { cause: new Error('no space') }) }, 'verb failed');
    expect(JSON.stringify(to.all[0])).toContain('no space');
  });

  it('takes an unknown level as info', () => {
    expect(levelOf('verbose')).toBe('info');
    expect(levelOf(undefined)).toBe('info');
    expect(levelOf('debug')).toBe('debug');
  });
});
