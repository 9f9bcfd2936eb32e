import { describe, expect, it } from 'vitest';
import { refuse } from '../answer.ts';
import { askGuest, type AskAgent, type GuestAction } from './guest-agent.ts';

const waited = async (): Promise<void> => undefined;
/** An agent that answers by the name of the command, and what it was told. */
const agent = (answers: Readonly<Record<string, (args: Readonly<Record<string, unknown>>) => Awaited<ReturnType<AskAgent>>>>) => {
  const told: { readonly execute: string; readonly arguments?: Readonly<Record<string, unknown>> }[] = [];
  const ask: AskAgent = (command) => {
    const one = command as (typeof told)[number];
    told.push(one);
    return Promise.resolve(answers[one.execute]?.(one.arguments ?? {}) ?? { returned: {} });
  };
  return { told, ask: (action: GuestAction) => askGuest(action, ask, waited) };
};

describe('A guest agent', () => {
  it('is told a password in its own form', async () => {
    const { told, ask } = agent({});
    expect(await ask({ kind: 'password', user: 'root', password: 'pä:ss' })).toEqual({ method: 'guest-agent' });
    expect(told).toEqual([{ execute: 'guest-set-user-password', arguments: { username: 'root', password: Buffer.from('pä:ss').toString('base64'), crypted: false } }]);
  });

  it('adds keys to those there are, and takes away only those that are named', async () => {
    const { told, ask } = agent({});
    await ask({ kind: 'add-ssh-keys', user: 'debian', keys: ['ssh-ed25519 AAAA'] });
    await ask({ kind: 'remove-ssh-keys', user: 'debian', keys: ['ssh-ed25519 AAAA'] });
    expect(told).toEqual([
      { execute: 'guest-ssh-add-authorized-keys', arguments: { username: 'debian', keys: ['ssh-ed25519 AAAA'], reset: false } },
      { execute: 'guest-ssh-remove-authorized-keys', arguments: { username: 'debian', keys: ['ssh-ed25519 AAAA'] } },
    ]);
  });

  it('that says no is believed', async () => {
    const { ask } = agent({ 'guest-set-user-password': () => refuse('guest.refused') });
    expect(await ask({ kind: 'password', user: 'nobody', password: 'x' })).toEqual({ refused: 'guest.refused' });
  });

  const runs = (works: (path: unknown) => boolean, name: string) => {
    let exitcode = 0;
    return agent({
      'guest-exec': ({ path }) => { exitcode = works(path) ? 0 : 1; return { returned: { pid: 7 } }; },
      'guest-exec-status': () => ({ returned: { exited: true, exitcode } }),
      'guest-get-host-name': () => ({ returned: { 'host-name': name } }),
    });
  };

  it('names its machine by the first label, with what the system has for it, and is looked at afterwards', async () => {
    const systemd = runs(() => true, 'web-2');
    expect(await systemd.ask({ kind: 'hostname', hostname: 'web-2.example.org' })).toEqual({ method: 'guest-agent' });
    expect(systemd.told[0]).toEqual({ execute: 'guest-exec', arguments: { path: 'hostnamectl', arg: ['set-hostname', 'web-2'] } });
    const without = runs((path) => path === 'hostname', 'web-2');
    expect(await without.ask({ kind: 'hostname', hostname: 'web-2' })).toEqual({ method: 'guest-agent' });
    expect(await runs(() => true, 'web-1').ask({ kind: 'hostname', hostname: 'web-2' })).toEqual({ refused: 'guest.refused' });
    expect(await runs(() => false, 'web-1').ask({ kind: 'hostname', hostname: 'web-2' })).toEqual({ refused: 'guest.refused' });
  });

  it('that never ends what it runs is not waited for', async () => {
    const { told, ask } = agent({ 'guest-exec': () => ({ returned: { pid: 7 } }), 'guest-exec-status': () => ({ returned: { exited: false } }) });
    expect(await ask({ kind: 'hostname', hostname: 'web-2' })).toEqual({ refused: 'guest.no_answer' });
    expect(told.length).toBe(51);
  });

  it('whose answers are nonsense has done nothing', async () => {
    for (const returned of [null, 'yes', [], { pid: 'seven' }, { pid: {} }]) expect(await agent({ 'guest-exec': () => ({ returned }) }).ask({ kind: 'hostname', hostname: 'a' })).toEqual({ refused: 'guest.refused' });
  });
});
