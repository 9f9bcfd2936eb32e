import { runService } from '@chronovirt/host/run';
import { readConfig } from './config.ts';

// Imported late, so that the compile cache is on before anything of weight is read.
await runService(async () => (await import('./service.ts')).start(readConfig()));
