/* The process of an agent, or of a fleet of simulated ones. */
import { enableCompileCache } from 'node:module';
import { COMPILE_CACHE, readConfig } from './config.ts';
import type { Running } from './service.ts';

// Before anything of weight is read: it is imported late.
enableCompileCache(COMPILE_CACHE);

const CLOSE_MS_MAX = 15_000;

const end = (fault: unknown): never => {
  process.stderr.write(`${fault instanceof Error ? fault.message : String(fault)}\n`);
  process.exit(1);
};

const startWhatIsAsked = async (): Promise<Running> => {
  const config = readConfig();
  return config.kind === 'fleet' ? (await import('./fleet.os.ts')).startFleet(config.fleet) : (await import('./service.ts')).start(config.agent);
};

const running = await startWhatIsAsked().catch(end);
let closing = false;
const close = (): void => {
  if (closing) return;
  closing = true;
  setTimeout(() => process.exit(1), CLOSE_MS_MAX).unref();
  running.close().then(() => process.exit(0), end);
};
process.on('SIGTERM', close);
process.on('SIGINT', close);
// Only a person can help: say it, and let whoever started us decide when to try again.
void running.failed.then((fault) => { if (!closing) end(fault); });
