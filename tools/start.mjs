/*
 * What `npm start`, `npm stop`, `npm run status`, `npm test` and the others begin with.
 *
 * It runs on the machine's own Node (18 or newer) and needs nothing installed. It brings what the
 * lock file says, with the pinned Node 24 among it, and hands over to that Node. Two steps, because
 * npm chooses packages for a platform by the Node it runs on: with an old one it leaves some out
 * without a word. So first a small folder, toolchain/, gets Node 24 and npm 11 by the machine's npm;
 * then these two install everything else.
 *
 * A stamp with the hash of the lock file says that it was done, and makes a start with nothing to do
 * take no time. Two starts at once: one installs behind a lock (flock(1), where it exists), the other waits.
 *
 * No dependency, no TypeScript: this must run before there is any.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const toolchain = join(root, 'toolchain');
const npm11 = join(toolchain, 'node_modules', 'npm', 'bin', 'npm-cli.js');
const bin = join(root, 'node_modules', '.bin');
const stamp = join(root, 'node_modules', '.chronovirt-installed');
const INSTALL_ONLY = '--install-only';

const VERBS = {
  up: 'start everything: npm start [-- --detach] [-- --split]',
  stop: 'stop everything but the virtual machines: npm stop',
  status: 'say what runs: npm run status',
  test: 'npm test [-- level …]',
  check: 'npm run check',
  crash: 'npm run crash',
  bench: 'npm run bench',
};

const say = (text) => console.log(`chronovirt: ${text}`);
const fail = (text, code = 1) => {
  console.error(`chronovirt: ${text}`);
  process.exit(code);
};

const nodeIn = (dir) => join(dir, 'node_modules', `node-${process.platform}-${process.arch}`, 'bin', 'node');
const lockHash = () => createHash('sha256').update(readFileSync(join(root, 'package-lock.json'))).digest('hex');
const isInstalled = () => existsSync(nodeIn(root)) && existsSync(stamp) && readFileSync(stamp, 'utf8') === lockHash();

const [verb = 'up', ...rest] = process.argv.slice(2);
if (verb === INSTALL_ONLY) {
  if (!isInstalled()) install();
  process.exit(0);
}
if (!(verb in VERBS)) fail(`there is no "${verb}". There is:\n${Object.values(VERBS).map((text) => `  ${text}`).join('\n')}`, 2);
if (process.platform !== 'linux') fail('Chronovirt runs on Linux', 1);
if (Number(process.versions.node.split('.')[0]) < 18) fail(`Node ${process.versions.node} is too old to begin with: 18 or newer, please`);
if (!isInstalled()) installAlone();
handOver();

/** Installs behind a lock, so that two starts do not write into one node_modules. */
function installAlone() {
  const started = spawnSync('flock', [join(toolchain, 'package-lock.json'), process.execPath, fileURLToPath(import.meta.url), INSTALL_ONLY], { stdio: 'inherit' });
  if (started.error) install(); // no flock here: then without
  else if (started.status !== 0) process.exit(started.status ?? 1);
  if (!isInstalled()) fail('the node modules were not installed');
}

function install() {
  const startedMs = Date.now();
  say('installing node modules, Node 24 among them (once for each change of package-lock.json)');
  // The npm that runs us, when one does: the one in PATH may be another, or missing.
  const npm = process.env.npm_execpath ? [process.execPath, process.env.npm_execpath] : ['npm'];
  if (!existsSync(nodeIn(toolchain)) || !existsSync(npm11)) ci(toolchain, npm);
  if (!existsSync(nodeIn(toolchain))) fail(`the registry has no Node 24 for ${process.platform} on ${process.arch}`);
  ci(root, [nodeIn(toolchain), npm11]);
  if (!existsSync(nodeIn(root))) fail('npm installed no Node 24');
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, lockHash());
  rmSync(join(toolchain, 'node_modules'), { recursive: true, force: true }); // 200 MB that the root has as well
  say(`node modules installed in ${seconds(startedMs)}`);
}

function ci(dir, [command, ...args]) {
  // npm hands its settings down by environment; those of the outer npm would steer the inner one.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_(lifecycle|package|command)/.test(name)));
  const done = spawnSync(command, [...args, 'ci', '--loglevel=error', '--no-progress'], { cwd: dir, env, stdio: ['ignore', 'ignore', 'inherit'] });
  if (done.error) fail(`could not run ${command}: ${done.error.message}. Install npm (Debian: apt-get install npm)`);
  if (done.signal) process.exit(128 + (constants.signals[done.signal] ?? 0));
  if (done.status !== 0) fail(`npm ci failed in ${dir}; its words stand above`, done.status ?? 1);
}

/** Becomes the Node 24 that does the work, as far as a Node can: same streams, same signals, same end. */
function handOver() {
  const node = nodeIn(root);
  const env = { ...process.env, PATH: bin + delimiter + (process.env.PATH ?? ''), NODE: node, npm_node_execpath: node };
  const script = [join(root, 'tools', `${verb}.ts`), join(root, verb, 'src', 'main.ts')].find((file) => existsSync(file));
  if (!script) fail(`"${verb}" has no script in tools/`);
  const child = spawn(node, [script, ...rest], { cwd: root, env, stdio: 'inherit' });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT']) {
    process.on(signal, () => {
      // A terminal sends Ctrl-C to the child as well; a second one of the same kind does no harm there.
      child.kill(signal);
    });
  }
  child.once('error', (error) => fail(`could not run ${node}: ${error.message}`));
  child.once('exit', (code, signal) => process.exit(code ?? 128 + (constants.signals[signal] ?? 0)));
}

function seconds(sinceMs) {
  return `${((Date.now() - sinceMs) / 1000).toFixed(1)} s`;
}
