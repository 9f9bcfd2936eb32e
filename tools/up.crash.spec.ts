/*
 * `npm start` and its relatives as a user types them, in a folder of their own, with a simulated node:
 * what a start does to one that runs, and what is left when something was killed.
 */
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { argumentsOf, isAlive, processes, until } from './child.ts';
import { locate } from './home.ts';
import { tell } from './keeper-client.ts';
import { freePort } from './ports.ts';

const dir = mkdtempSync(join(tmpdir(), 'cv-start-'));
chmodSync(dir, 0o755);
const home = locate(join(dir, 'home'));
const port = await freePort();

interface Ended {
  readonly code: number | null;
  readonly said: string;
}

function type(verb: 'up' | 'stop' | 'status', options: readonly string[] = [], environment: NodeJS.ProcessEnv = {}): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(import.meta.dirname, `${verb}.ts`), ...options], { env: { ...process.env, CV_HOME: home.dir, CV_PORT: String(port), ...environment }, stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes: Buffer) => (said += bytes.toString('utf8')));
    child.once('error', reject);
    child.once('exit', (code) => resolve({ code, said }));
  });
}

const start = (options: readonly string[] = [], environment: NodeJS.ProcessEnv = {}): Promise<Ended> => type('up', ['--detach', '--simulated', ...options], environment);
const pids = async (): Promise<readonly (readonly [string, number | undefined])[]> => ((await tell(home, { do: 'list' }))?.parts ?? []).map((part) => [part.name, part.pid]);
const ask = async (path: string, token = readFileSync(home.adminTokenFile, 'utf8').trim()): Promise<number> =>
  (await fetch(`http://127.0.0.1:${port}${path}`, { headers: { authorization: `Bearer ${token}` } })).status;
/** Processes of this installation: each has its folder on its command line or is the keeper's child. */
const leftRunning = (): readonly number[] => processes().filter((pid) => argumentsOf(pid).some((word) => word.includes(dir)));

afterAll(async () => {
  await type('stop');
  rmSync(dir, { recursive: true, force: true });
});

describe('npm start', () => {
  it('brings everything up, twice at once as well as once', async () => {
    const [one, two] = await Promise.all([start(), start()]);
    expect([one.code, two.code], one.said + two.said).toEqual([0, 0]);
    const said = [one.said, two.said].sort((a, b) => b.length - a.length);
    expect(said[0]).toMatch(/ready after \d+\.\d s/);
    expect(said[1]).toMatch(/another start or stop is at work[^]*runs already/);
    expect(await ask('/v1/nodes')).toBe(200);
    expect(await ask('/v1/nodes', 'cv_00000000_none')).toBe(401);
    expect(statSync(home.adminTokenFile).mode & 0o777).toBe(0o600);
  });

  it('a second one finds the first, on its port, and leaves it alone', async () => {
    const before = await pids();
    const second = await start([], { CV_PORT: String(port + 1) });
    expect(second.code, second.said).toBe(0);
    expect(second.said).toContain(`it runs on port ${port}`);
    expect(second.said).toContain('runs already');
    expect(await pids()).toEqual(before);
    expect((await type('status')).said).toMatch(/control-plane .*ready[^]*Ready on/);
  });

  it('a part that is killed comes back by itself', async () => {
    const before = new Map(await pids());
    process.kill(before.get('control-plane') ?? 0, 'SIGKILL');
    expect(await until(async () => (await ask('/v1/nodes')) === 200 && new Map(await pids()).get('control-plane') !== before.get('control-plane'), { withinMs: 30_000, everyMs: 100 })).toBe(true);
    expect((await type('status')).said).toContain('started again 1 times, ended last with SIGKILL');
  });

  it('goes on where a killed keeper left off, with nothing running twice', async () => {
    const { keeper = 0, parts = [] } = (await tell(home, { do: 'list' })) ?? {};
    process.kill(keeper, 'SIGKILL');
    expect(await until(() => !isAlive(keeper), { withinMs: 3_000 })).toBe(true);
    const status = await type('status');
    expect(status.code).toBe(1);
    expect(status.said).toContain('these were left running: nats');
    const again = await start();
    expect(again.code, again.said).toBe(0);
    expect(again.said).toContain('ended what an earlier start left behind');
    for (const part of parts) expect(isAlive(part.pid ?? 0), part.name).toBe(false);
    expect(await ask('/v1/nodes')).toBe(200);
  });

  it('says which port is taken, and starts nothing', async () => {
    const other = join(dir, 'other');
    const ended = await start([], { CV_HOME: other });
    expect(ended.code).toBe(1);
    expect(ended.said).toContain(`port ${port} of 127.0.0.1 is taken by another program: set CV_PORT to a free one`);
    expect(await tell(locate(other), { do: 'list' })).toBeUndefined();
    expect(await ask('/v1/nodes')).toBe(200);
  });

  it('is ended by npm stop, in full, and stopping twice does no harm', async () => {
    const stopped = await type('stop');
    expect(stopped.code, stopped.said).toBe(0);
    expect(stopped.said).toMatch(/stopped node-agent[^]*stopped control-plane[^]*stopped nats[^]*stopped postgres/);
    // A process that was ended is seen for a moment until its parent has taken note.
    await expect.poll(leftRunning, { timeout: 5_000 }).toEqual([]);
    expect(existsSync(join(home.sockets, 'keeper.sock'))).toBe(false);
    expect((await type('stop')).said).toContain('nothing of the platform ran');
    expect((await type('status')).code).toBe(3);
  });

  it('keeps what it knew over a stop, and its token', async () => {
    const token = readFileSync(home.adminTokenFile, 'utf8');
    const again = await start(['--split']);
    expect(again.code, again.said).toBe(0);
    expect(readFileSync(home.adminTokenFile, 'utf8')).toBe(token);
    expect(again.said).not.toContain('registered');
    expect((await pids()).map(([name]) => name)).toEqual(expect.arrayContaining(['api-gateway', 'scheduler', 'ipam', 'storage', 'monitor', 'node-agent']));
    expect(await ask('/v1/nodes')).toBe(200);
  });
});
