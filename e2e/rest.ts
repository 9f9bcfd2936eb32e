/* The REST API as a patient client uses it: an answer or a problem, and conditions that are waited for. */
import { setTimeout as sleep } from 'node:timers/promises';

export interface Answered<T> {
  readonly status: number;
  readonly headers: Headers;
  readonly body: T;
}

export interface CallOptions {
  /** Idempotency-Key. */
  readonly key?: string | undefined;
  readonly token?: string | null | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  readonly withinMs?: number;
}

export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail?: string;
  readonly code: string;
  readonly errors?: readonly { readonly path: string; readonly message: string }[];
}

/** What GET /v1/operations/:id shows, as far as tests look. */
export interface Operation {
  readonly id: string;
  readonly kind: string;
  readonly vmId: string | null;
  readonly status: 'pending' | 'running' | 'succeeded' | 'failed' | 'compensated';
  readonly percent: number;
  readonly steps: readonly { readonly name: string; readonly status: string; readonly deadlineMs: number; readonly startedAt: string | null; readonly endedAt: string | null }[];
  readonly requestedAt: string;
  readonly startedAt: string | null;
  readonly deadlineAt: string | null;
  readonly endedAt: string | null;
  readonly how: string | null;
  readonly error: { readonly code: string; readonly message: string; readonly because: unknown } | null;
  readonly owed: readonly string[];
  readonly members: readonly { readonly operationId: string; readonly vmId: string | null }[] | null;
}

export interface Vm {
  readonly id: string;
  readonly name: string;
  readonly status: string;
  readonly statusBecause: string | null;
  readonly desired: string;
  readonly observed: { readonly state: string; readonly reason: string; readonly nodeId: string; readonly generation: number; readonly nodeAt: string | null; readonly at: string } | null;
  readonly nodeId: string | null;
  readonly generation: number;
  readonly address: string | null;
  readonly mac: string | null;
  readonly operationId: string | null;
  readonly failure: { readonly code: string; readonly message: string; readonly owed: readonly string[] } | null;
  readonly createdAt: string;
}

export interface Accepted {
  readonly operation: Operation;
  readonly vm: Vm;
}

export interface Event {
  readonly position: number;
  readonly type: string;
  readonly category: string;
  readonly subject: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly actor: string;
  readonly commandId: string;
  readonly causedBy: string | null;
  readonly operationId: string | null;
  readonly vmId: string | null;
  readonly traceId: string | null;
  readonly nodeId: string | null;
  readonly nodeAt: string | null;
  readonly recordedAt: string;
}

/** A problem where an answer was expected. */
export class Refused extends Error {
  override readonly name = 'Refused';
  readonly status: number;
  readonly code: string;
  readonly problem: Problem;
  constructor(method: string, path: string, status: number, problem: Problem) {
    super(`${method} ${path} was answered ${String(status)} ${problem.code}: ${problem.detail ?? problem.title} ${problem.errors === undefined ? '' : JSON.stringify(problem.errors)}`);
    this.status = status;
    this.code = problem.code;
    this.problem = problem;
  }
}

export interface Rest {
  /** Whatever is answered, problems too. Rejects when nobody answers. */
  call<T = unknown>(method: string, path: string, body?: unknown, options?: CallOptions): Promise<Answered<T>>;
  /** The body of a success. Throws Refused. */
  ok<T = unknown>(method: string, path: string, body?: unknown, options?: CallOptions): Promise<T>;
  /** The same, asked again with one key while nobody answers, or the answer is that something is away. */
  insist<T = unknown>(method: string, path: string, body: unknown, key: string, withinMs: number): Promise<T>;
  /** Every item of a list, page by page. */
  all<T>(path: string): Promise<readonly T[]>;
  operation(id: string): Promise<Operation>;
  /** Resolves with the operation once it has ended, however it did. */
  ended(operationId: string, withinMs: number): Promise<Operation>;
  /** The same, and throws when it did not succeed. */
  succeeded(operationId: string, withinMs?: number): Promise<Operation>;
  /** A write that makes an operation, and its end. Throws when it did not succeed. */
  done(method: string, path: string, body?: unknown, withinMs?: number): Promise<Operation>;
  vm(id: string): Promise<Vm>;
  /** Waits until a VM shows a status. */
  status(vmId: string, status: string, withinMs?: number): Promise<Vm>;
  create(wish: Readonly<Record<string, unknown>>, key?: string): Promise<Accepted>;
  /** Creates one and waits until it runs. */
  running(wish: Readonly<Record<string, unknown>>, withinMs?: number): Promise<Vm>;
  /** DELETE ?force=true, to the end. */
  gone(vmId: string, withinMs?: number): Promise<void>;
  /** Waits for a condition with a bound; faults of the condition are "not yet". The last one is in the message. */
  until<T>(what: string, ask: () => Promise<T | undefined | false>, withinMs: number, everyMs?: number): Promise<T>;
}

const CALL_WITHIN_MS = 15_000;
const ENDED_WITHIN_MS = 60_000;

/** The smallest VM there is, under a name of its own. */
export const wish = (name: string, more: Readonly<Record<string, unknown>> = {}): Readonly<Record<string, unknown>> =>
  ({ name, image: 'blank', network: 'lab', vcpus: 1, memoryMib: 128, diskGib: 1, ...more });

export function restOf(url: string, token: string): Rest {
  const call = async <T>(method: string, path: string, body?: unknown, options: CallOptions = {}): Promise<Answered<T>> => {
    const bearer = options.token === undefined ? token : options.token;
    const response = await fetch(url + path, {
      method,
      headers: {
        ...(bearer === null ? {} : { authorization: `Bearer ${bearer}` }), ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(options.key === undefined ? {} : { 'idempotency-key': options.key }), ...options.headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(options.withinMs ?? CALL_WITHIN_MS),
    });
    const text = await response.text();
    return { status: response.status, headers: response.headers, body: (text === '' ? undefined : parse(text)) as T };
  };

  const ok = async <T>(method: string, path: string, body?: unknown, options?: CallOptions): Promise<T> => {
    const answer = await call<T>(method, path, body, options);
    if (answer.status >= 400) throw new Refused(method, path, answer.status, answer.body as unknown as Problem);
    return answer.body;
  };

  const waitUntil = async <T>(what: string, ask: () => Promise<T | undefined | false>, withinMs: number, everyMs = 20): Promise<T> => {
    const deadline = performance.now() + withinMs;
    let last: unknown = 'not so';
    for (;;) {
      try {
        const found = await ask();
        if (found !== undefined && found !== false) return found;
      } catch (error) {
        last = error;
      }
      if (performance.now() >= deadline) throw new Error(`not within ${String(withinMs)} ms: ${what}`, { cause: last });
      await sleep(everyMs);
    }
  };

  const rest: Rest = {
    call, ok, until: waitUntil,
    insist: (method, path, body, key, withinMs) => {
      // What is refused stays refused; only "nobody there" is asked again.
      let refused: Refused | undefined;
      return waitUntil(`${method} ${path} is answered`, async () => {
        if (refused !== undefined) throw refused;
        try {
          return { body: await ok(method, path, body, { key, withinMs: 5_000 }) };
        } catch (error) {
          if (error instanceof Refused && error.status < 500) {
            refused = error;
            return { body: undefined };
          }
          throw error;
        }
      }, withinMs, 50).then((answer) => {
        if (refused !== undefined) throw refused;
        return answer.body as never;
      });
    },
    all: async <T>(path: string) => {
      const items: T[] = [];
      let next: string | null = null;
      for (let page = 0; page < 1_000; page++) {
        const query: string = next === null ? '' : `${path.includes('?') ? '&' : '?'}cursor=${encodeURIComponent(next)}`;
        const answer: { items: T[]; next: string | null } = await ok('GET', path + query);
        items.push(...answer.items);
        next = answer.next;
        if (next === null) return items;
      }
      throw new Error(`${path} has no end`);
    },
    operation: (id) => ok('GET', `/v1/operations/${id}`),
    ended: (id, withinMs) => waitUntil(`operation ${id} has ended`, async () => {
      const operation = await rest.operation(id);
      return operation.endedAt === null ? undefined : operation;
    }, withinMs),
    succeeded: async (id, withinMs = ENDED_WITHIN_MS) => {
      const operation = await rest.ended(id, withinMs);
      if (operation.status !== 'succeeded') throw new Error(`operation ${id} (${operation.kind}) ended ${operation.status}: ${JSON.stringify(operation.error)}`);
      return operation;
    },
    done: async (method, path, body, withinMs) => rest.succeeded((await ok<Accepted>(method, path, body)).operation.id, withinMs),
    vm: (id) => ok('GET', `/v1/vms/${id}`),
    status: async (id, status, withinMs = 30_000) => {
      let last: Vm | undefined;
      try {
        return await waitUntil(`${id} is ${status}`, async () => {
          last = await rest.vm(id);
          return last.status === status ? last : undefined;
        }, withinMs);
      } catch (cause) {
        throw new Error(`${id} did not become ${status}: ${last === undefined ? 'it was never seen' : `it is ${last.status} (${String(last.statusBecause)})`}`, { cause });
      }
    },
    create: (body, key) => ok('POST', '/v1/vms', body, { key }),
    running: async (body, withinMs = ENDED_WITHIN_MS) => {
      const { operation, vm } = await rest.create(body);
      await rest.succeeded(operation.id, withinMs);
      return rest.vm(vm.id);
    },
    gone: async (vmId, withinMs) => { await rest.done('DELETE', `/v1/vms/${vmId}?force=true`, undefined, withinMs); },
  };
  return rest;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
