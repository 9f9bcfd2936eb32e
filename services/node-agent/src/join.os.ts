/*
 * How a machine becomes a node.
 *
 * At its first start the agent makes two keys, and neither leaves the machine: one that proves it to the
 * bus, one that secrets for it are sealed to. It shows their public halves with a join token to the
 * gateway, and is given its id and a certificate for the bus. Later starts need no token.
 *
 * The keys are on disk before the gateway is asked. Were the answer lost, the same machine asks with the
 * same keys and the same token, and becomes the same node.
 */
import { generateKeyPairSync } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { NodeId } from '@chronovirt/contracts/ids';
import { backOffMs } from '@chronovirt/messaging/connect';
import { signRequest } from '@chronovirt/messaging/node-signature';
import { createUser } from '@nats-io/nkeys';
import { z } from 'zod';
import { writeDurably } from './durable.os.ts';

const Keys = z.object({
  machineId: z.string(),
  /** nkey of the bus: public half and seed. */
  credentialKey: z.string(), credentialSeed: z.string(),
  /** X25519, base64url of the 32 bytes. */
  sealKey: z.string(), sealPrivateKey: z.string(),
});

const Renewed = z.object({ natsJwt: z.string().min(1), natsUrls: z.array(z.string().min(1)).min(1) });
const Joined = z.object({ nodeId: NodeId, ...Renewed.shape });

/** What a node keeps, in `<state>/node.json`. Everything but the id is secret or nobody's business. */
const Membership = z.object({ ...Keys.shape, ...Joined.shape });
export type Membership = z.infer<typeof Membership>;

export interface JoinOptions {
  readonly gatewayUrl: string;
  readonly stateDir: string;
  readonly machineId: string;
  readonly name: string;
  /** Asked at the first start only, and again while the gateway cannot be reached. */
  readonly joinToken: () => Promise<string>;
  readonly log: { info(fields: object, sentence: string): void; warn(fields: object, sentence: string): void };
  readonly signal: AbortSignal;
}

/** The gateway said no, or nobody can be asked: the message tells a person what to do. */
export class JoinRefused extends Error {
  override readonly name = 'JoinRefused';
}

const ASK_MS = 15_000;
/** A node that has a certificate does not wait long for a better one. */
const RENEW_MS = 3_000;
const BACK_OFF_FIRST_MS = 500;
const BACK_OFF_MAX_MS = 15_000;

/** What this machine is by now, or becomes. Waits for the gateway as long as it takes; throws JoinRefused, or the signal's reason. */
export async function joinOrRecall(options: JoinOptions): Promise<Membership> {
  const { stateDir, machineId } = options;
  await mkdir(stateDir, { recursive: true, mode: 0o700 });
  const kept = await readKept(join(stateDir, 'node.json'), Membership);
  if (kept !== undefined) {
    if (kept.machineId !== machineId) {
      throw new JoinRefused(`${stateDir} belongs to the machine ${kept.machineId}, and this is ${machineId}: the folder was copied, or /etc/machine-id was changed. Start with an empty state folder and a join token, or set CV_NODE_AGENT_MACHINE_ID=${kept.machineId} if it is the same machine.`);
    }
    return renewed(kept, options);
  }
  const keysFile = join(stateDir, 'keys.json');
  const known = await readKept(keysFile, Keys);
  const keys = known?.machineId === machineId ? known : makeKeys(machineId);
  if (keys !== known) await writeDurably(keysFile, JSON.stringify(keys));
  const membership = { ...keys, ...(await ask(options, keys)) };
  await writeDurably(join(stateDir, 'node.json'), JSON.stringify(membership));
  options.log.info({ nodeId: membership.nodeId, machineId }, 'this machine is a node now');
  return membership;
}

/**
 * What a node may say on the bus is written in its certificate, and a newer version may have more to say. So each
 * start asks for a new one, and goes on with the old one where nobody answers.
 */
async function renewed(kept: Membership, { gatewayUrl, stateDir, log, signal }: JoinOptions): Promise<Membership> {
  const path = '/v1/node/credentials';
  try {
    const answer = await fetch(gatewayUrl + path, {
      headers: { authorization: signRequest({ method: 'GET', path, nodeId: kept.nodeId }, kept.credentialSeed, Math.floor(Date.now() / 1_000)) },
      redirect: 'error', signal: AbortSignal.any([signal, AbortSignal.timeout(RENEW_MS)]),
    });
    if (!answer.ok) throw new Error(`it answered ${String(answer.status)}`);
    const membership = { ...kept, ...Renewed.parse(await answer.json()) };
    await writeDurably(join(stateDir, 'node.json'), JSON.stringify(membership));
    return membership;
  } catch (err) {
    signal.throwIfAborted();
    log.info({ err, gatewayUrl }, 'the certificate for the bus was not renewed, the one from before is used');
    return kept;
  }
}

function makeKeys(machineId: string): z.infer<typeof Keys> {
  const user = createUser();
  const seal = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' });
  return { machineId, credentialKey: user.getPublicKey(), credentialSeed: new TextDecoder().decode(user.getSeed()), sealKey: String(seal.x), sealPrivateKey: String(seal.d) };
}

async function ask({ gatewayUrl, machineId, name, joinToken, log, signal }: JoinOptions, keys: z.infer<typeof Keys>): Promise<z.infer<typeof Joined>> {
  for (let attempt = 0; ; attempt++) {
    let response: Response;
    const token = await joinToken();
    try {
      response = await fetch(`${gatewayUrl}/v1/nodes/join`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ name, machineId, credentialKey: keys.credentialKey, sealKey: keys.sealKey }),
        redirect: 'error',
        signal: AbortSignal.any([signal, AbortSignal.timeout(ASK_MS)]),
      });
      const body: unknown = await response.json().catch(() => undefined);
      if (response.ok) return Joined.parse(body);
      // The control plane is there and cannot answer now; or another version of it speaks.
      if (response.status >= 500 || response.status === 429) throw new Error(`the gateway answered ${response.status}`);
      throw refusal(response.status, body, machineId);
    } catch (fault) {
      signal.throwIfAborted();
      if (fault instanceof JoinRefused) throw fault;
      if (fault instanceof z.ZodError) throw new JoinRefused(`what answers at ${gatewayUrl} is no gateway of this version: ${z.prettifyError(fault)}`);
      const waitMs = backOffMs(attempt, BACK_OFF_FIRST_MS, BACK_OFF_MAX_MS);
      log.warn({ err: fault, gatewayUrl, waitMs: Math.round(waitMs) }, 'the gateway cannot be reached, trying again');
      await delay(waitMs, undefined, { signal });
    }
  }
}

function refusal(status: number, body: unknown, machineId: string): JoinRefused {
  const problem = z.object({ code: z.string().optional(), detail: z.string().optional(), errors: z.array(z.object({ field: z.string().optional(), message: z.string().optional() })).optional() }).safeParse(body).data;
  const said = [problem?.detail, ...(problem?.errors ?? []).map((error) => `${error.field ?? ''} ${error.message ?? ''}`.trim())].filter(Boolean).join(' ');
  const hint = HINTS.find(([code]) => problem?.code?.includes(code) === true)?.[1] ?? (status === 401 || status === 403 ? NEW_TOKEN : 'See the gateway\'s log.');
  return new JoinRefused(`this machine (${machineId}) may not join: ${said || `the gateway answered ${status}`}${problem?.code === undefined ? '' : ` [${problem.code}]`}\n${hint}`);
}

const NEW_TOKEN = 'Issue a new join token (POST /v1/nodes/join-tokens), write it to the file that CV_NODE_AGENT_JOIN_TOKEN_FILE names, and start the agent again.';
const HINTS: readonly (readonly [code: string, hint: string])[] = [
  ['expired', `The join token has expired. ${NEW_TOKEN}`],
  ['redeemed', `The join token let another machine in; each machine needs its own. ${NEW_TOKEN}`],
  ['machine_id_taken', 'A node with this machine id exists. If this machine was cloned from it, give it an id of its own: rm /etc/machine-id && systemd-machine-id-setup (or set CV_NODE_AGENT_MACHINE_ID). If it is the same machine with its state folder lost, remove the old node first (DELETE /v1/nodes/<id>).'],
  ['token', NEW_TOKEN],
];

/** A token from the file that the operator wrote it to. */
export async function tokenFromFile(file: string | undefined): Promise<string> {
  if (file === undefined) throw new JoinRefused(`this machine has not joined yet, and CV_NODE_AGENT_JOIN_TOKEN_FILE is not set. ${NEW_TOKEN}`);
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new JoinRefused(`this machine has not joined yet, and the join token in ${file} cannot be read. ${NEW_TOKEN}`, { cause });
  });
  const token = text.trim();
  if (!/^[A-Za-z0-9_-]{20,200}$/.test(token)) throw new JoinRefused(`${file} holds no join token. ${NEW_TOKEN}`);
  return token;
}

async function readKept<T>(file: string, schema: z.ZodType<T>): Promise<T | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (fault) {
    if ((fault as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw fault;
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new JoinRefused(`${file} cannot be understood: restore it, or move it away and join again with a new token`, { cause });
  }
}
