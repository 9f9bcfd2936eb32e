/*
 * The fake daemon as a program, for clients of other processes:
 *
 *   node --conditions=chronovirt-source libs/libvirt/src/fake/main.ts --socket /tmp/fake.sock [--hostname node-1]
 *     [--seed 1] [--domains 10] [--boot-ms 1000] [--shutdown-ms 100] [--job-ms 100]
 *   virsh -c 'qemu+unix:///system?socket=/tmp/fake.sock' list --all
 *
 * `--socket` and `--hostname` may be given several times: each pair is a node, and they migrate to each
 * other. Says `listening PATH` for each on standard output when all are ready; ends on SIGTERM or SIGINT.
 */
import { parseArgs } from 'node:util';
import { FakeDaemon } from './daemon.ts';
import { populate } from './fleet.ts';
import { Migrations } from './migration.ts';

const { values } = parseArgs({
  options: {
    socket: { type: 'string', multiple: true },
    hostname: { type: 'string', multiple: true },
    seed: { type: 'string', default: '1' },
    domains: { type: 'string', default: '0' },
    'boot-ms': { type: 'string', default: '1000' },
    'shutdown-ms': { type: 'string', default: '100' },
    'job-ms': { type: 'string', default: '100' },
  },
});

function count(name: string, text: string): number {
  const number = Number(text);
  if (!Number.isSafeInteger(number) || number < 0) throw new TypeError(`--${name} is a whole number, not ${text}`);
  return number;
}

const sockets = values.socket ?? [];
if (sockets.length === 0) {
  process.stderr.write('--socket PATH is needed: where to listen\n');
  process.exit(2);
}
const migrations = new Migrations();
const daemons = sockets.map((_, index) => {
  const daemon = new FakeDaemon({
    hostname: values.hostname?.[index] ?? (sockets.length === 1 ? 'fake' : `fake-${index + 1}`),
    seed: count('seed', values.seed),
    guest: { bootMs: count('boot-ms', values['boot-ms']), shutdownMs: count('shutdown-ms', values['shutdown-ms']) },
    jobMs: count('job-ms', values['job-ms']),
    migrations,
  });
  populate(daemon.node, { domains: count('domains', values.domains), running: true });
  return daemon;
});
const stop = () => void Promise.all(daemons.map((daemon) => daemon.close())).then(() => process.exit(0));
process.once('SIGTERM', stop);
process.once('SIGINT', stop);
await Promise.all(daemons.map((daemon, index) => daemon.listen(sockets[index] as string)));
for (const path of sockets) process.stdout.write(`listening ${path}\n`);
