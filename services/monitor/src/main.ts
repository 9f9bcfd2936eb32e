import { runService } from '@chronovirt/host/run';
import { startTracing } from '@chronovirt/observability/tracing';
import { readConfig } from './config.ts';
import { start } from './service.ts';

await startTracing('monitor');
await runService(async () => start(readConfig()));
