/* What a process holds, for tests that it does not grow. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** After everything that nobody has any more is gone. */
export function memoryHeld(): NodeJS.MemoryUsage {
  collect();
  collect();
  return process.memoryUsage();
}

/** Bytes of the heap, and of buffers and long strings, which are outside of it. */
export function heldBytes(): number {
  const { heapUsed, external } = memoryHeld();
  return heapUsed + external;
}
