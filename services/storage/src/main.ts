import { runService } from '@chronovirt/host/run';
import { readConfig } from './config.ts';
import { start } from './service.ts';

await runService(() => start(readConfig()));
