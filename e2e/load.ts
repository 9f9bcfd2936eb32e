/* Users at work: each creates a VM, waits until it runs, deletes it, and begins again. */
import { Refused, wish, type Accepted, type Operation } from './rest.ts';
import type { Platform } from './platform.ts';

export interface Done {
  readonly id: string;
  readonly kind: 'create' | 'delete';
  readonly outcome: Operation['status'] | 'refused';
  readonly because: string | undefined;
  /** By the test's clock. Milliseconds since the epoch. */
  readonly askedAt: number;
  readonly endedAt: number;
}

export interface Load {
  /** Every operation that has ended, in order. */
  readonly done: readonly Done[];
  /** Waits until this many operations have ended. */
  reached(count: number, withinMs: number): Promise<void>;
  /** No new lives; waits for those under way, each within `withinMs`. */
  stop(): Promise<readonly Done[]>;
}

export interface LoadOptions {
  /** Users at once. */
  readonly width: number;
  readonly name: string;
  /** How long one operation may take with everything that happens meanwhile. */
  readonly withinMs: number;
}

/** How a user asks: with a key, again and again while nobody answers. */
export function startLoad({ rest }: Platform, { width, name, withinMs }: LoadOptions): Load {
  const done: Done[] = [];
  let stopping = false;
  let lives = 0;

  const operation = async (kind: Done['kind'], ask: () => Promise<Accepted>): Promise<{ readonly ended: Done; readonly vmId: string | undefined }> => {
    const askedAt = Date.now();
    try {
      const accepted = await ask();
      const { status, error } = await rest.ended(accepted.operation.id, withinMs);
      const ended: Done = { id: accepted.operation.id, kind, outcome: status, because: error?.code, askedAt, endedAt: Date.now() };
      done.push(ended);
      return { ended, vmId: accepted.operation.vmId ?? undefined };
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const ended: Done = { id: '', kind, outcome: 'refused', because: error.code, askedAt, endedAt: Date.now() };
      done.push(ended);
      return { ended, vmId: undefined };
    }
  };

  const user = async (): Promise<void> => {
    while (!stopping) {
      const life = `${name}-${String(++lives)}`;
      const { vmId } = await operation('create', () => rest.insist<Accepted>('POST', '/v1/vms', wish(life), `${life}-create`, withinMs));
      if (vmId !== undefined) await operation('delete', () => rest.insist<Accepted>('DELETE', `/v1/vms/${vmId}?force=true`, undefined, `${life}-delete`, withinMs));
    }
  };
  let failure: unknown;
  const users = Array.from({ length: width }, () => user().catch((error: unknown) => {
    failure ??= error;
    stopping = true;
  }));

  const orThrow = (): void => {
    if (failure !== undefined) throw new Error('a user gave up', { cause: failure });
  };
  return {
    done,
    reached: async (count, within) => {
      await rest.until(`${String(count)} operations have ended`, async () => {
        if (failure !== undefined) return true;
        return done.length >= count;
      }, within);
      orThrow();
    },
    stop: async () => {
      stopping = true;
      await Promise.all(users);
      orThrow();
      return done;
    },
  };
}
