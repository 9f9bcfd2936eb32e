/*
 * vitest's global set-up: one Postgres and one nats-server for the run, when a file of the run needs one.
 *
 * What the tests get by environment:
 *   CV_TEST_POSTGRES_URL      superuser, database `postgres`; use testDatabase() of tools/test-postgres.ts
 *   CV_TEST_POSTGRES_SECRETS  file with the passwords of the roles
 *   CV_TEST_NATS_URL          nats://127.0.0.1:<port>
 *   CV_TEST_NATS_CREDS        creds file of the service user
 *   CV_TEST_NATS_SYSTEM_CREDS creds file of the system user
 *   CV_TEST_NATS_KEYS         folder with the operator's and the account's keys
 */
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { argumentsOf, birthOf, processes, programOf, stopPid } from './child.ts';
import { startNats, type Nats } from './nats.ts';
import { startPostgres, type Postgres } from './postgres.ts';
import { writeWhole } from './secrets.ts';

const PREFIX = 'cv-vitest-';
const NEEDS_SERVERS = /\.(pg|nats|crash|libvirt)\.spec\.ts$|\/e2e\//;

let dir: string | undefined;
let postgres: Postgres | undefined;
let nats: Nats | undefined;

export async function setup(project: TestProject): Promise<void> {
  await sweep();
  if (dir !== undefined || !(await isNeeded(project))) return;
  dir = mkdtempSync(join(tmpdir(), PREFIX));
  chmodSync(dir, 0o755); // the servers run as another user and must pass through
  writeWhole(join(dir, 'owner'), `${process.pid} ${birthOf(process.pid)}`);
  [postgres, nats] = await Promise.all([startPostgres({ dir: join(dir, 'pg') }), startNats({ dir: join(dir, 'nats') })]);
  Object.assign(process.env, {
    CV_TEST_POSTGRES_URL: postgres.url('postgres', 'postgres'),
    CV_TEST_POSTGRES_SECRETS: join(dir, 'pg', 'postgres.secrets.json'),
    CV_TEST_NATS_URL: nats.url,
    CV_TEST_NATS_CREDS: nats.serviceCreds,
    CV_TEST_NATS_SYSTEM_CREDS: nats.systemCreds,
    CV_TEST_NATS_KEYS: nats.keysDir,
  });
}

export async function teardown(): Promise<void> {
  await Promise.all([postgres?.stop(), nats?.stop()]);
  if (dir !== undefined) rmSync(dir, { recursive: true, force: true });
  dir = postgres = nats = undefined;
}

/** Pure tests wait for nothing. */
async function isNeeded(project: TestProject): Promise<boolean> {
  if (process.env['CV_TEST_POSTGRES_URL']) return false; // somebody else's servers
  const named = process.argv.slice(2).filter((word) => !word.startsWith('-') && word !== 'run' && word !== 'watch');
  const { testFiles } = await project.globTestFiles(named.length > 0 ? named : undefined);
  // Words that are values of options may filter everything away: then rather start for nothing than miss.
  return testFiles.length === 0 || testFiles.some((file) => NEEDS_SERVERS.test(file));
}

/** Takes away what a killed run left behind. */
async function sweep(): Promise<void> {
  for (const name of readdirSync(tmpdir()).filter((entry) => entry.startsWith(PREFIX))) {
    const left = join(tmpdir(), name);
    const owner = join(left, 'owner');
    if (!existsSync(owner)) continue;
    const [pid, birth] = readFileSync(owner, 'utf8').split(' ');
    if (birthOf(Number(pid)) === birth) continue;
    for (const pid of processes()) {
      const isStillIt = (): boolean => argumentsOf(pid).some((word) => word.startsWith(left)) && /\/(postgres|nats-server)$/.test(programOf(pid) ?? '');
      if (isStillIt()) await stopPid(pid, isStillIt, [['SIGQUIT', 5_000], ['SIGKILL', 2_000]]);
    }
    rmSync(left, { recursive: true, force: true });
  }
}
