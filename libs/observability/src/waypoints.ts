/*
 * Where a test may hold a process, to kill it, or a server beside it, at exactly that moment.
 *
 * "Killed between the effect and the report" is a few microseconds wide; no test meets it by waiting. So
 * a process that is told a folder (CV_WAYPOINTS, with CV_TEST=1, else it refuses to start) says at named
 * moments where it is, and stands still there when somebody wants it to:
 *
 *   <folder>/armed/<name>   made by the test. The first process that comes by renames it to
 *   <folder>/held/<name>    and goes on when the test removes it, or when nobody has for 20 s
 *   <folder>/trace/<pid>    when the folder `trace` is there: every waypoint passed, a line each
 *
 * Only the work that came by stands still, not the process. Without the folder nothing of this is in the
 * way of anything: whoever joins the parts leaves the wrappers out.
 */
import { appendFileSync, existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Waypoints {
  /** Says that `name` is reached; resolves when the work may go on. */
  reach(name: string): Promise<void>;
}

const HOLD_MS_MAX = 20_000;
const LOOK_EVERY_MS = 2;
/** Names are names of files. */
const NAME = /^[A-Za-z0-9._-]{1,150}$/;

export const openWaypoints = (folder: string): Waypoints => {
  const trace = join(folder, 'trace');
  return {
    async reach(name) {
      if (!NAME.test(name)) throw new RangeError(`not the name of a waypoint: ${JSON.stringify(name.slice(0, 200))}`);
      if (existsSync(trace)) appendFileSync(join(trace, String(process.pid)), `${name}\n`);
      const held = join(folder, 'held', name);
      try {
        renameSync(join(folder, 'armed', name), held);
      } catch {
        return; // nobody waits here, or another process was first
      }
      for (const until = performance.now() + HOLD_MS_MAX; existsSync(held) && performance.now() < until;) await sleep(LOOK_EVERY_MS);
    },
  };
};
