/*
 * What an installation needs before its services start, where `npm start` does not do it: under
 * docker-compose and on Kubernetes. The image `setup` runs this file; so does a clone that was built.
 *
 *   keys <folder> [--kubernetes]   makes everything that is secret, once; a second run keeps all of it
 *   database                       roles and database, as Postgres' superuser (an operator does it on Kubernetes)
 *   migrate                        brings the database to what this version needs, as its owner
 *   enroll <folder> <name>…        a join token for each node that is to join, a file each
 *
 * `keys` gives every reader a folder of its own, so that each is shown its own secrets and no other's:
 *
 *   admin/admin.token                    you
 *   postgres/password                    the Postgres container's superuser; on Kubernetes <role>/{username,password}
 *   nats/accounts.conf                   nats-server: signed JWTs, nothing secret
 *   setup/{environment,passwords.json}   `database` and `migrate`
 *   <service>/{environment,service.creds}
 *   api-gateway/{installation.json,system.creds}   mints and revokes the credentials of agents
 *   node-agent/                          where `enroll` puts tokens
 *
 * `environment` holds NAME=value lines and is read by Node itself (--env-file-if-exists), so that no
 * secret stands in a manifest, in an argument, or in what `docker inspect` shows.
 */
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createInstallationKeys, serviceCreds, systemCreds } from '@chronovirt/messaging/credentials';
import type { InstallationKeys } from '@chronovirt/messaging/credentials';
import { eventLogMigrations, migrate } from '@chronovirt/event-log/migrate';
import pg from 'pg';

/** The services of the control plane: folder, name in the environment, schema and role in Postgres. */
export const services = [
  { name: 'api-gateway', key: 'GATEWAY', schema: 'gateway', role: 'cv_gateway' },
  { name: 'scheduler', key: 'SCHEDULER', schema: 'scheduler', role: 'cv_scheduler' },
  { name: 'ipam', key: 'IPAM', schema: 'ipam', role: 'cv_ipam' },
  { name: 'storage', key: 'STORAGE', schema: 'storage', role: 'cv_storage' },
  { name: 'monitor', key: 'MONITOR', schema: 'monitor', role: 'cv_monitor' },
] as const;

const DATABASE = 'chronovirt';
const ROLES = ['cv_owner', ...services.map(({ role }) => role)] as const;

/** Under whom the images run, and under whom the official Postgres image does (Debian variants). */
const SERVICE_UID = 10_001;
const POSTGRES_UID = 999;

export interface Place {
  /** Host and port of Postgres as the services reach it. */
  readonly postgres: string;
  /** Added to each connection string: how to check whom we talk to. */
  readonly query: string;
  readonly kubernetes: boolean;
}

export const places = {
  compose: { postgres: 'postgres:5432', query: '', kubernetes: false },
  kubernetes: { postgres: 'chronovirt-postgres-rw.chronovirt:5432', query: '?sslmode=verify-full&sslrootcert=/etc/chronovirt/postgres/ca.crt', kubernetes: true },
} as const satisfies Readonly<Record<string, Place>>;

/** 256 bits in 43 characters that need no escaping anywhere. */
const secret = (): string => randomBytes(32).toString('base64url');

/** Writes whole or not at all, for one reader. `uid` counts where we may give files away. */
function write(path: string, text: string, uid: number, mode = 0o600): void {
  const draft = `${path}.${randomBytes(4).toString('hex')}`;
  writeFileSync(draft, text, { mode });
  if (process.getuid?.() === 0) chownSync(draft, uid, uid);
  renameSync(draft, path);
}

/** Makes what is not there yet, and says what is in it. */
function once(path: string, uid: number, make: () => string): string {
  if (!existsSync(path)) write(path, make(), uid);
  return readFileSync(path, 'utf8').trim();
}

function folder(root: string, name: string, uid: number): string {
  const path = join(root, name);
  mkdirSync(path, { recursive: true });
  chmodSync(path, 0o700); // docker makes folders that are to be mounted, readable by all
  if (process.getuid?.() === 0) chownSync(path, uid, uid);
  return path;
}

/** Everything secret of an installation, in `root`. May be run again: what is there stays. */
export async function makeKeys(root: string, place: Place): Promise<void> {
  mkdirSync(root, { recursive: true, mode: 0o711 });
  const me = process.getuid?.() ?? 0;

  const gateway = folder(root, 'api-gateway', SERVICE_UID);
  const keysFile = join(gateway, 'installation.json');
  if (!existsSync(keysFile)) write(keysFile, JSON.stringify(await createInstallationKeys(), null, 2), SERVICE_UID);
  const keys = JSON.parse(readFileSync(keysFile, 'utf8')) as InstallationKeys;
  const systemFile = join(gateway, 'system.creds');
  if (!existsSync(systemFile)) write(systemFile, await systemCreds(keys), SERVICE_UID);
  write(join(folder(root, 'nats', me), 'accounts.conf'), accountsConf(keys), me, 0o644);

  const admin = folder(root, 'admin', me);
  const installation = once(join(admin, 'installation'), me, () => randomBytes(4).toString('hex'));
  const adminToken = once(join(admin, 'admin.token'), me, () => `cv_${installation}_${secret()}`);

  const setup = folder(root, 'setup', SERVICE_UID);
  const passwords = JSON.parse(once(join(setup, 'passwords.json'), SERVICE_UID, () => JSON.stringify(Object.fromEntries(['postgres', ...ROLES].map((role) => [role, secret()])), null, 2))) as Readonly<Record<string, string>>;
  const url = (role: string, database: string): string => {
    const password = passwords[role];
    if (password === undefined) throw new Error(`passwords.json has no password for ${role}`);
    return `postgresql://${role}:${password}@${place.postgres}/${database}${place.query}`;
  };
  write(join(setup, 'environment'), lines({ CV_SETUP_OWNER_URL: url('cv_owner', DATABASE), ...(place.kubernetes ? {} : { CV_SETUP_SUPERUSER_URL: url('postgres', 'postgres') }) }), SERVICE_UID);

  const postgres = folder(root, 'postgres', POSTGRES_UID);
  if (place.kubernetes) {
    for (const role of ROLES) {
      const own = folder(postgres, role, me);
      write(join(own, 'username'), role, me);
      write(join(own, 'password'), passwords[role] ?? '', me);
    }
  } else {
    write(join(postgres, 'password'), passwords['postgres'] ?? '', POSTGRES_UID);
  }

  for (const { name, key, role } of services) {
    const own = folder(root, name, SERVICE_UID);
    const creds = join(own, 'service.creds');
    if (!existsSync(creds)) write(creds, await serviceCreds(keys), SERVICE_UID);
    write(join(own, 'environment'), lines({
      [`CV_${key}_POSTGRES_URL`]: url(role, DATABASE),
      ...(name === 'api-gateway' ? { CV_INSTALLATION: installation, CV_GATEWAY_ADMIN_TOKEN_SHA256: createHash('sha256').update(adminToken).digest('hex') } : {}),
    }), SERVICE_UID);
  }
  folder(root, 'node-agent', me);
  if (place.kubernetes) write(join(root, 'kustomization.yaml'), kustomization(), me);
}

const lines = (values: Readonly<Record<string, string>>): string => Object.entries(values).map(([name, value]) => `${name}=${value}\n`).join('');

/** What nats-server includes: whom it believes. It never changes afterwards; agents come and go by signed JWTs. */
const accountsConf = (keys: InstallationKeys): string => `operator: "${keys.operatorJwt}"
system_account: ${keys.systemAccount}
resolver { type: full, dir: "/data/accounts", allow_delete: false, interval: "2m" }
resolver_preload {
  ${keys.systemAccount}: "${keys.systemAccountJwt}"
  ${keys.account}: "${keys.accountJwt}"
  ${keys.agentsAccount}: "${keys.agentsAccountJwt}"
}
`;

/** `kubectl apply -k <folder>` makes the Secrets that infra/k8s names, straight from these files. */
function kustomization(): string {
  const one = (name: string, namespace: string, files: readonly string[], type = 'Opaque'): string =>
    `  - name: ${name}\n    namespace: ${namespace}\n    type: ${type}\n    files:\n${files.map((file) => `      - ${file}\n`).join('')}`;
  return `# Made by infra/setup.ts keys --kubernetes. Holds names of files alone; the files are secret.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
generatorOptions:
  disableNameSuffixHash: true
secretGenerator:
${one('chronovirt-nats-accounts', 'chronovirt', ['nats/accounts.conf'])}${one('chronovirt-setup', 'chronovirt', ['setup/environment'])}${services
  .map(({ name }) => one(`chronovirt-${name}`, 'chronovirt', [`${name}/environment`, `${name}/service.creds`])).join('')}${one('chronovirt-nats-keys', 'chronovirt', ['api-gateway/installation.json', 'api-gateway/system.creds'])}${ROLES
  .map((role) => one(`chronovirt-postgres-${role.replaceAll('_', '-')}`, 'chronovirt', [`postgres/${role}/username`, `postgres/${role}/password`], 'kubernetes.io/basic-auth')).join('')}`;
}

async function connected<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000, application_name: 'chronovirt setup' });
  client.on('error', () => undefined); // the query under way says it
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** The roles and the database, where they are missing. `cv_owner` may act for each service, so that migrations can grant. */
export async function ensureDatabase(superuserUrl: string, passwords: Readonly<Record<string, string>>, database = DATABASE): Promise<void> {
  await connected(superuserUrl, async (client) => {
    // A password is part of a statement, so no statement of this session may reach Postgres' log.
    await client.query(`set log_statement = 'none'; set log_min_duration_statement = -1; set log_min_error_statement = 'panic'; set password_encryption = 'scram-sha-256'`);
    for (const role of ROLES) {
      const password = passwords[role];
      if (password === undefined) throw new Error(`no password for ${role}`);
      const { rowCount } = await client.query('select from pg_roles where rolname = $1', [role]);
      if (rowCount === 0) await client.query(`create role ${role} login nosuperuser nocreatedb ${role === 'cv_owner' ? 'createrole' : 'nocreaterole'} password ${client.escapeLiteral(password)}`);
      if (role !== 'cv_owner') await client.query(`grant ${role} to cv_owner with admin option`);
    }
    const name = client.escapeIdentifier(database);
    const { rowCount } = await client.query('select from pg_database where datname = $1', [database]);
    if (rowCount === 0) await client.query(`create database ${name} owner cv_owner`);
    await client.query(`revoke all on database ${name} from public`);
    await client.query(`grant connect, temporary on database ${name} to ${services.map(({ role }) => role).join(', ')}`);
  });
}

/** Every migration that did not run yet; what ran, by file. Safe to run twice and at once. */
export async function migrateAll(ownerUrl: string, repository = join(import.meta.dirname, '..')): Promise<readonly string[]> {
  // A service without tables of its own still has a schema and may read the log: its folder is an empty one.
  const none = mkdtempSync(join(tmpdir(), 'cv-no-migrations-'));
  const folders = services.map(({ name, schema, role }) => {
    const own = join(repository, 'services', name, 'migrations');
    return { schema, role, folder: existsSync(own) ? own : none };
  });
  const ran = await migrate(ownerUrl, [eventLogMigrations, ...folders]).finally(() => { rmSync(none, { recursive: true }); });
  return ran.map(({ schema, file }) => `${schema}/${file}`);
}

export interface Enrolment {
  /** http://… of a gateway. */
  readonly gateway: string;
  readonly adminToken: string;
  readonly folder: string;
  readonly names: readonly string[];
}

/** A join token for each name, in `<folder>/<name>`: each good for one node, and for as long as the gateway says. */
export async function enroll({ gateway, adminToken, folder: into, names }: Enrolment): Promise<void> {
  mkdirSync(into, { recursive: true, mode: 0o700 });
  for (const name of names) {
    if (!/^[A-Za-z0-9][A-Za-z0-9.-]{0,252}$/.test(name)) throw new RangeError('not a name of a node');
    const response = await fetch(new URL('/v1/nodes/join-tokens', gateway), {
      method: 'POST', body: '{}', headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' }, signal: AbortSignal.timeout(10_000),
    });
    if (!response.ok) throw new Error(`the gateway gave no join token: ${response.status} ${(await response.text()).slice(0, 500)}`);
    const { token } = (await response.json()) as { readonly token: string };
    write(join(into, name), token, process.getuid?.() ?? 0);
  }
}

const needed = (name: string): string => {
  const value = process.env[name];
  if (value === undefined || value === '') throw new Error(`${name} is not set`);
  return value;
};

async function main(): Promise<void> {
  const { positionals: [verb, ...rest], values } = parseArgs({
    allowPositionals: true,
    options: { kubernetes: { type: 'boolean', default: false }, 'unless-joined': { type: 'string' } },
  });
  const say = (text: string): void => { process.stdout.write(`${text}\n`); };
  switch (verb) {
    case 'keys': {
      const [root] = rest;
      if (root === undefined) throw new Error('keys: into which folder?');
      await makeKeys(root, values.kubernetes ? places.kubernetes : places.compose);
      say(`keys and passwords are in ${root}; the admin token is in ${join(root, 'admin/admin.token')}`);
      return;
    }
    case 'database':
      await ensureDatabase(needed('CV_SETUP_SUPERUSER_URL'), JSON.parse(readFileSync(needed('CV_SETUP_PASSWORDS_FILE'), 'utf8')) as Readonly<Record<string, string>>);
      say('roles and database are there');
      return;
    case 'migrate': {
      const ran = await migrateAll(needed('CV_SETUP_OWNER_URL'));
      say(ran.length === 0 ? 'the database is up to date' : `migrated: ${ran.join(', ')}`);
      return;
    }
    case 'enroll': {
      const [into, ...names] = rest;
      if (into === undefined || names.length === 0) throw new Error('enroll: into which folder, and which nodes?');
      // A node that has joined keeps its identity, and a token that nobody uses is one too many.
      if (values['unless-joined'] !== undefined && existsSync(values['unless-joined'])) return say('this node has joined before');
      await enroll({ gateway: needed('CV_SETUP_GATEWAY_URL'), adminToken: readFileSync(needed('CV_SETUP_ADMIN_TOKEN_FILE'), 'utf8').trim(), folder: into, names });
      return say(`${names.length} join tokens are in ${into}`);
    }
    default:
      throw new Error('one of: keys <folder> [--kubernetes], database, migrate, enroll <folder> <name>…');
  }
}

if (import.meta.main) {
  await main().catch((fault: unknown) => {
    for (let at: unknown = fault; at instanceof Error; at = at.cause) process.stderr.write(`${at.message}\n`);
    process.exitCode = 1;
  });
}
