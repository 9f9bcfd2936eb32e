import { MemoryLog } from './memory-log.ts';
import { promisesOfALog } from './testing-log.ts';

const log = new MemoryLog(() => 0);
promisesOfALog('memory', () => log);
