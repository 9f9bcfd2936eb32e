/*
 * `npm start`: from whatever is there to a platform that is ready, saying each step.
 *
 *   packages ∥ build → keeper → Postgres ∥ NATS ∥ libvirt ∥ guest image → migrations
 *     → control plane → node agent → image and network registered → the node is ready
 *
 * Each step looks first and does only what is missing, so a start that was interrupted is continued by
 * the next. A lock on CV_HOME lets two starts at once agree: the second waits and finds the first's work.
 * What runs belongs to the keeper (keeper.ts), so this process may end, and does with --detach.
 */
import { parseArgs } from 'node:util';
import { join } from 'node:path';
import { endOf } from './child.ts';
import { installationOf, settingsFrom, type Settings } from './home.ts';
import { withLock } from './lock.ts';
import { PartFailed, tell } from './keeper-client.ts';
import { say, sinceStart } from './say.ts';
import { portInUse, runsAlready } from './running.ts';
import { stopEverything } from './stopping.ts';
import { bringUp } from './bringing-up.ts';
import { prepare } from './preparing.ts';

const HELP = `npm start [-- options]
  --detach      return when everything is ready, and leave it running
  --split       each service in a process of its own
  --simulated   a node without a hypervisor
  CV_HOME       where the state lies (default: .chronovirt in the repository)
  CV_PORT       where the API listens on 127.0.0.1 (default: 8080)`;

const LOCK_WITHIN_MS = 10 * 60_000;

async function main(): Promise<number> {
  const { values: options } = parseArgs({
    args: process.argv.slice(2),
    options: { detach: { type: 'boolean', default: false }, split: { type: 'boolean', default: false }, simulated: { type: 'boolean', default: false }, help: { type: 'boolean', default: false } },
  });
  if (options.help) {
    console.log(HELP);
    return 0;
  }
  const asked = settingsFrom(process.env);
  // What runs keeps its port until it is stopped.
  const running = (await tell(asked.home, { do: 'list' })) ? portInUse(asked.home) : undefined;
  if (running !== undefined && running !== asked.port) say(`it runs on port ${running}; npm stop first to have it on ${asked.port}`);
  const settings = { ...asked, port: running ?? asked.port };
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => interrupted.abort(signal));

  const outcome = await withLock(join(settings.home.dir, 'control.lock'), { withinMs: LOCK_WITHIN_MS, onWait: () => say('another start or stop is at work; waiting for it') }, () => start(settings, options, interrupted.signal));
  if (outcome === 'failed') return 1;
  if (outcome === 'interrupted') return 130;
  report(settings, outcome === 'ran already');
  if (options.detach || outcome === 'ran already') return 0;

  say('Ctrl-C stops the platform; virtual machines go on running');
  const why = await untilInterruptedOrGone(settings, interrupted.signal);
  if (why === 'gone') {
    say('stopped by another');
    return 0;
  }
  await withLock(join(settings.home.dir, 'control.lock'), { withinMs: LOCK_WITHIN_MS, onWait: () => {} }, () => stopEverything(settings.home, say));
  return 0;
}

type Outcome = 'started' | 'ran already' | 'failed' | 'interrupted';

async function start(settings: Settings, options: { readonly split: boolean; readonly simulated: boolean }, interrupted: AbortSignal): Promise<Outcome> {
  const { home, port } = settings;
  if (await runsAlready(home, port)) return 'ran already';
  const something = (await tell(home, { do: 'list' })) !== undefined;
  if (something) say('parts of it run; starting the rest');
  try {
    const prepared = await prepare(settings, interrupted);
    await bringUp(settings, { split: options.split, simulated: options.simulated, ...prepared }, interrupted);
    return 'started';
  } catch (error) {
    if (interrupted.aborted) say('interrupted');
    else explain(error);
    // What ran before this start goes on; what this start began alone is ended.
    if (!something) await stopEverything(home, () => {});
    return interrupted.aborted ? 'interrupted' : 'failed';
  }
}

function report({ home, port }: Settings, alreadyRan: boolean): void {
  say(alreadyRan ? 'runs already' : `ready after ${sinceStart()}`);
  console.log(`
  API          http://127.0.0.1:${port}/v1
  token        ${home.adminTokenFile}
  installation ${installationOf(home)}, state in ${home.dir}${home.open === home.dir ? '' : ` and ${home.open}`}
  try          curl -H "Authorization: Bearer $(cat ${home.adminTokenFile})" http://127.0.0.1:${port}/v1/nodes
`);
}

/** For people: what went wrong, the end of the log of what failed, and where the rest stands. */
function explain(error: unknown): void {
  const chain: string[] = [];
  for (let at: unknown = error; at instanceof Error; at = at.cause) chain.push(at.message);
  console.error(`chronovirt: ${chain.join('\n  because ') || String(error)}`);
  if (error instanceof PartFailed) console.error(endOf(error.logFile));
  if (process.env['CV_DEBUG']) console.error(error);
}

const LOOKS_EVERY_MS = 2_000;

function untilInterruptedOrGone({ home }: Settings, signal: AbortSignal): Promise<'interrupted' | 'gone'> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve('interrupted');
    const timer = setInterval(() => {
      void tell(home, { do: 'list' }).catch(() => undefined).then((answer) => {
        if (answer) return;
        clearInterval(timer);
        resolve('gone');
      });
    }, LOOKS_EVERY_MS);
    signal.addEventListener('abort', () => {
      clearInterval(timer);
      resolve('interrupted');
    });
  });
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    explain(error);
    process.exit(1);
  },
);
