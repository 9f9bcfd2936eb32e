/*
 * Who may connect to the bus, in NATS's operator mode.
 *
 *   operator ── signs ──▶ account SYS     the server's own: revocations
 *        ├───── signs ──▶ account CV      the services, and all streams
 *        └───── signs ──▶ account AGENTS  the node agents; no JetStream
 *                            └─ signing key ── signs ──▶ one user for each agent
 *
 * The server knows the operator and the accounts, never the users: a user proves itself with a
 * JWT that its account's signing key signed and with the key that the JWT names. So an agent is
 * added without touching the server, and the agent's private key never leaves its node. Taking
 * one away means listing its public key in the account's JWT, which only the operator can sign;
 * the server then closes the live connection and refuses the next.
 *
 * Agents have an account of their own because permissions check the subject of a message and not
 * its reply subject: in the account of the streams, a report sent with the reply subject
 * `$JS.API.STREAM.PURGE.EVENTS` has JetStream's acknowledgement empty that stream, and a pull can
 * delete it (both seen on 2.9.10). Across accounts only the subjects in `crossings` exist.
 *
 * Everything here is text, so that whoever calls decides where it is kept. All seeds are secrets.
 */
import { createAccount, createOperator, createUser, decode, encodeAccount, encodeOperator, encodeUser, fmtCreds } from '@nats-io/jwt';
import type { Account } from '@nats-io/jwt';
import type { NatsConnection } from '@nats-io/transport-node';
import { agentPermissions, crossings } from './topology.ts';

export { agentPermissions } from './topology.ts';

export interface InstallationKeys {
  readonly operatorSeed: string;
  readonly operatorJwt: string;
  readonly systemAccount: string;
  readonly systemAccountSeed: string;
  readonly systemAccountJwt: string;
  /** The services'. */
  readonly account: string;
  readonly accountSeed: string;
  readonly accountJwt: string;
  readonly signingSeed: string;
  readonly agentsAccount: string;
  readonly agentsAccountSeed: string;
  readonly agentsAccountJwt: string;
  readonly agentsSigningSeed: string;
}

/** What minting a service's user takes. */
export type ServiceSigningKeys = Pick<InstallationKeys, 'account' | 'signingSeed'>;

/** What minting an agent's user takes: its account's name (a public key) and that account's signing key. */
export type AgentSigningKeys = Pick<InstallationKeys, 'agentsAccount' | 'agentsSigningSeed'>;

/** What revoking an agent takes. */
export type RevokingKeys = Pick<InstallationKeys, 'operatorSeed' | 'agentsAccount'>;

/** What renewing the accounts takes. */
export type RenewingKeys = RevokingKeys & Pick<InstallationKeys, 'account'>;

const UNLIMITED = { conn: -1, leaf: -1, imports: -1, exports: -1, wildcards: true, subs: -1, data: -1, payload: -1 };
const UNLIMITED_JETSTREAM = { mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1 };

const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

/** What passes between the accounts, as each of the two says it. */
const exported = () => crossings.map(({ name, subject, direction }) => ({ name, subject, type: direction === 'in' ? ('service' as const) : ('stream' as const) }));
const importedFrom = (account: string) => exported().map((one) => ({ ...one, account, local_subject: one.subject }));

/** Makes a new installation's keys. Called once; the result is kept with mode 0600. */
export async function createInstallationKeys(): Promise<InstallationKeys> {
  const operator = createOperator();
  const [system, account, signing, agents, agentsSigning] = [createAccount(), createAccount(), createAccount(), createAccount(), createAccount()];
  const systemAccount = system.getPublicKey();
  return {
    operatorSeed: textOf(operator.getSeed()),
    operatorJwt: await encodeOperator('chronovirt', operator, { system_account: systemAccount }),
    systemAccount,
    systemAccountSeed: textOf(system.getSeed()),
    // Limits left out mean 0, not "none": even the system account then refuses its first connection.
    systemAccountJwt: await encodeAccount('SYS', system, { limits: UNLIMITED }, { signer: operator }),
    account: account.getPublicKey(),
    accountSeed: textOf(account.getSeed()),
    accountJwt: await encodeAccount(
      'CV',
      account,
      { limits: { ...UNLIMITED, ...UNLIMITED_JETSTREAM }, signing_keys: [signing.getPublicKey()], exports: exported() },
      { signer: operator },
    ),
    signingSeed: textOf(signing.getSeed()),
    agentsAccount: agents.getPublicKey(),
    agentsAccountSeed: textOf(agents.getSeed()),
    agentsAccountJwt: await encodeAccount(
      'AGENTS',
      agents,
      { limits: UNLIMITED, signing_keys: [agentsSigning.getPublicKey()], imports: importedFrom(account.getPublicKey()) },
      { signer: operator },
    ),
    agentsSigningSeed: textOf(agentsSigning.getSeed()),
  };
}

export interface ServerSettings {
  readonly host: string;
  /** 0 is not understood by nats-server as "any"; use -1 for a free port, printed in its log. */
  readonly port: number;
  readonly storeDir: string;
  readonly resolverDir: string;
  readonly serverName?: string;
  /** Bound of what JetStream may store, in bytes. Default 12 GiB; the streams of `topology.ts` ask for 7 at most. */
  readonly storeBytesMax?: number;
  /** Server certificate for agents on other machines. */
  readonly tls?: { readonly certFile: string; readonly keyFile: string };
  /** nats-server's own monitoring, for example 127.0.0.1:8222; off when left out. */
  readonly monitor?: { readonly host: string; readonly port: number };
}

// nats-server reads a JSON string as its own double-quoted string; a line break would end the statement.
const quoted = (text: string): string => {
  if (/[\r\n\0]/.test(text)) throw new RangeError('a line break in a setting of nats-server');
  return JSON.stringify(text);
};

/** The text of nats-server's configuration file. It holds no secret and never changes afterwards. */
export function natsServerConfig(keys: InstallationKeys, settings: ServerSettings): string {
  const lines = [
    `server_name: ${quoted(settings.serverName ?? 'chronovirt')}`,
    `host: ${quoted(settings.host)}`,
    `port: ${settings.port}`,
    `jetstream { store_dir: ${quoted(settings.storeDir)}, max_mem: 64M, max_file: ${settings.storeBytesMax ?? 12 * 2 ** 30} }`,
    // A host that went silent is noticed within a minute, not within four.
    'ping_interval: "20s"',
    'ping_max: 2',
    'max_payload: 1M',
    `operator: ${quoted(keys.operatorJwt)}`,
    `system_account: ${keys.systemAccount}`,
    `resolver { type: full, dir: ${quoted(settings.resolverDir)}, allow_delete: false, interval: "2m" }`,
    'resolver_preload {',
    `  ${keys.systemAccount}: ${quoted(keys.systemAccountJwt)}`,
    `  ${keys.account}: ${quoted(keys.accountJwt)}`,
    `  ${keys.agentsAccount}: ${quoted(keys.agentsAccountJwt)}`,
    '}',
  ];
  if (settings.tls) lines.push(`tls { cert_file: ${quoted(settings.tls.certFile)}, key_file: ${quoted(settings.tls.keyFile)} }`);
  if (settings.monitor) lines.push(`http: ${quoted(`${settings.monitor.host}:${settings.monitor.port}`)}`);
  return lines.join('\n') + '\n';
}

/** A creds file for the services: everything inside the account, nothing of the server. Each call makes a new user. */
export async function serviceCreds(keys: ServiceSigningKeys): Promise<string> {
  const user = createUser();
  return textOf(fmtCreds(await encodeUser('service', user.getPublicKey(), keys.account, {}, { signer: bytesOf(keys.signingSeed) }), user));
}

/** A creds file for the system account: whoever holds it may change accounts, so only what revokes agents gets it. */
export async function systemCreds(keys: Pick<InstallationKeys, 'systemAccountSeed'>): Promise<string> {
  const user = createUser();
  return textOf(fmtCreds(await encodeUser('system', user.getPublicKey(), bytesOf(keys.systemAccountSeed), {}), user));
}

export interface AgentKey {
  readonly publicKey: string;
  readonly seed: string;
}

/** Made by the agent on its node; the seed stays there. */
export function createAgentKey(): AgentKey {
  const user = createUser();
  return { publicKey: user.getPublicKey(), seed: textOf(user.getSeed()) };
}

/** True for the public half of a NATS user key; what came over the network is checked before it is signed. */
export const isUserPublicKey = (text: string): boolean => /^U[A-Z2-7]{55}$/.test(text);

export interface AgentToMint {
  readonly keys: AgentSigningKeys;
  readonly nodeId: string;
  readonly userPublicKey: string;
  /** Without it the JWT is valid until it is revoked. */
  readonly expiresInSeconds?: number;
}

/** A JWT for one agent, with `agentPermissions` and nothing else. Takes about 20 ms of CPU. */
export async function mintAgentJwt({ keys, nodeId, userPublicKey, expiresInSeconds }: AgentToMint): Promise<string> {
  if (!isUserPublicKey(userPublicKey)) throw new RangeError('not the public key of a NATS user');
  const { pub, sub } = agentPermissions(nodeId);
  return encodeUser(
    `agent-${nodeId}`,
    userPublicKey,
    keys.agentsAccount,
    { pub: { allow: [...pub.allow] }, sub: { allow: [...sub.allow] } },
    { signer: bytesOf(keys.agentsSigningSeed), ...(expiresInSeconds === undefined ? {} : { exp: Math.floor(Date.now() / 1000) + expiresInSeconds }) },
  );
}

export interface Revocation {
  /** Connected as a user of the system account. */
  readonly system: NatsConnection;
  readonly keys: RevokingKeys;
  readonly userPublicKeys: readonly string[];
}

const CHANGE_ATTEMPTS_MAX = 5;

/**
 * Makes sure that all of these keys are refused, and their live connections closed; keys that
 * are revoked already cost nothing. The server's present JWT is read first, because the list
 * lives in it; and read again after writing, because two writers at once would lose one entry.
 */
export function revokeAgents({ system, keys, userPublicKeys }: Revocation): Promise<void> {
  for (const key of userPublicKeys) if (!isUserPublicKey(key)) throw new RangeError('not the public key of a NATS user');
  return changeAccount(system, keys, keys.agentsAccount, (present) => {
    const revocations = present.revocations ?? {};
    const missing = userPublicKeys.filter((key) => revocations[key] === undefined);
    const now = Math.floor(Date.now() / 1000);
    return missing.length === 0 ? undefined : { ...present, revocations: { ...revocations, ...Object.fromEntries(missing.map((key) => [key, now])) } };
  });
}

/**
 * Makes sure that what this version has to say passes between the accounts: those of an older installation let
 * pass what was said then. First who gives, then who takes. Keys that are revoked stay so.
 */
export async function renewAccounts({ system, keys }: { readonly system: NatsConnection; readonly keys: RenewingKeys }): Promise<void> {
  await changeAccount(system, keys, keys.account, (present) => (sameCrossings(present.exports, exported()) ? undefined : { ...present, exports: exported() }));
  await changeAccount(system, keys, keys.agentsAccount, (present) => (sameCrossings(present.imports, importedFrom(keys.account)) ? undefined : { ...present, imports: importedFrom(keys.account) }));
}

/** What names a crossing; the rest of an import or export is the server's own. */
const sameCrossings = (present: Partial<Account>['exports'] | Partial<Account>['imports'], wanted: readonly { readonly subject?: string; readonly type?: string }[]): boolean => {
  const named = (list: readonly { readonly subject?: string; readonly type?: string | number }[]): string => list.map(({ subject, type }) => `${String(type)} ${String(subject)}`).sort().join('\n');
  return named(present ?? []) === named(wanted);
};

/** `change` answers undefined when nothing has to be changed. */
async function changeAccount(system: NatsConnection, { operatorSeed }: Pick<RevokingKeys, 'operatorSeed'>, account: string, change: (present: Partial<Account>) => Partial<Account> | undefined): Promise<void> {
  for (let attempt = 1; attempt <= CHANGE_ATTEMPTS_MAX; attempt++) {
    const { name, nats } = decode<Account>(await lookUpAccount(system, account));
    const wanted = change(nats);
    if (wanted === undefined) return;
    const reply = await system.request('$SYS.REQ.CLAIMS.UPDATE', await encodeAccount(name, account, wanted, { signer: bytesOf(operatorSeed) }), { timeout: 5_000 });
    const said = reply.json<{ error?: { description?: string } }>();
    if (said.error) throw new Error(`the bus refused the account: ${said.error.description ?? 'no reason given'}`);
  }
  throw new Error('the account was overwritten each time');
}

/** Revokes one agent. Its key is burnt: a node that joins again makes a new one. */
export const revokeAgent = ({ userPublicKey, ...rest }: Omit<Revocation, 'userPublicKeys'> & { readonly userPublicKey: string }): Promise<void> =>
  revokeAgents({ ...rest, userPublicKeys: [userPublicKey] });

async function lookUpAccount(system: NatsConnection, account: string): Promise<string> {
  const reply = await system.request(`$SYS.REQ.ACCOUNT.${account}.CLAIMS.LOOKUP`, '', { timeout: 5_000 });
  const jwt = reply.string();
  if (jwt === '') throw new Error('the bus does not know the account');
  return jwt;
}
