/*
 * What the QEMU guest agent is told (qga/qapi-schema.json of QEMU), and what is believed of its answer.
 *
 * It is a program of the tenant's, who may have put anything in its place: it may not answer, answer late,
 * or say what is not so. Each question has a bound in time and size; an answer only ever says yes or no, and
 * none of its words go anywhere: in our log and in an error they would be the tenant's text, and they might
 * hold the password that it was just told.
 */
import type { GuestMethod } from '@chronovirt/contracts/vm/guest';
import { isRefusal, refuse } from '../answer.ts';
import type { Refusal } from '../answer.ts';

/** What is asked of a guest, with passwords in clear: never logged, stored or sent on. */
export type GuestAction =
  | { readonly kind: 'password'; readonly user: string; readonly password: string }
  | { readonly kind: 'add-ssh-keys' | 'remove-ssh-keys'; readonly user: string; readonly keys: readonly string[] }
  | { readonly kind: 'hostname'; readonly hostname: string };

export interface Asked {
  readonly method: GuestMethod;
}

/** One command of the agent: what it returns, or why there is nothing. Throws what says nothing of the guest. */
export type AskAgent = (command: object) => Promise<{ readonly returned: unknown } | Refusal>;

const EXEC_LOOK_MS = 200;
const EXEC_LOOKS_MAX = 50;

const simple = ({ kind, ...about }: Exclude<GuestAction, { readonly kind: 'hostname' }>): object => {
  const username = about.user;
  if ('password' in about) return { execute: 'guest-set-user-password', arguments: { username, password: Buffer.from(about.password, 'utf8').toString('base64'), crypted: false } };
  return kind === 'add-ssh-keys'
    ? { execute: 'guest-ssh-add-authorized-keys', arguments: { username, keys: about.keys, reset: false } }
    : { execute: 'guest-ssh-remove-authorized-keys', arguments: { username, keys: about.keys } };
};

/** cloud-init, too, names the machine after the first label. */
const labelOf = (hostname: string): string => hostname.split('.')[0] ?? hostname;

/** Runs a program in the guest to its end. */
async function exec(ask: AskAgent, wait: (ms: number) => Promise<unknown>, path: string, ...words: readonly string[]): Promise<Refusal | undefined> {
  const started = await ask({ execute: 'guest-exec', arguments: { path, arg: words } });
  if (isRefusal(started)) return started;
  const pid = fieldOf(started.returned, 'pid');
  if (typeof pid !== 'number') return refuse('guest.refused');
  for (let looks = 0; looks < EXEC_LOOKS_MAX; looks++) {
    const status = await ask({ execute: 'guest-exec-status', arguments: { pid } });
    if (isRefusal(status)) return status;
    if (fieldOf(status.returned, 'exited') === true) return fieldOf(status.returned, 'exitcode') === 0 ? undefined : refuse('guest.refused');
    await wait(EXEC_LOOK_MS);
  }
  return refuse('guest.no_answer');
}

const fieldOf = (value: unknown, name: string): unknown => (typeof value === 'object' && value !== null && Object.hasOwn(value, name) ? (value as Readonly<Record<string, unknown>>)[name] : undefined);

/** Has the agent do it, or says why not. */
export async function askGuest(action: GuestAction, ask: AskAgent, wait: (ms: number) => Promise<unknown>): Promise<Refusal | Asked> {
  if (action.kind !== 'hostname') {
    const answer = await ask(simple(action));
    return isRefusal(answer) ? answer : { method: 'guest-agent' };
  }
  const label = labelOf(action.hostname);
  // With systemd it lasts; the other one is there in every system, and lasts until it starts again.
  let refused: Refusal | undefined;
  for (const [path, ...words] of [['hostnamectl', 'set-hostname', label], ['hostname', label]] as const) {
    refused = await exec(ask, wait, path, ...words);
    if (refused === undefined || refused.refused !== 'guest.refused') break;
  }
  if (refused !== undefined) return refused;
  const named = await ask({ execute: 'guest-get-host-name' });
  if (isRefusal(named)) return named;
  return fieldOf(named.returned, 'host-name') === label ? { method: 'guest-agent' } : refuse('guest.refused');
}
