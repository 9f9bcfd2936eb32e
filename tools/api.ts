/* The platform's own REST API, as start uses it: with the administrator's token, on this machine. */
export class ApiRefused extends Error {
  readonly status: number;
  readonly code: string;
  constructor(method: string, path: string, status: number, code: string, detail: string) {
    super(`${method} ${path} was answered ${status} ${code}${detail ? `: ${detail}` : ''}`);
    this.name = 'ApiRefused';
    this.status = status;
    this.code = code;
  }
}

export interface Api {
  get<T>(path: string): Promise<T>;
  post<T>(path: string, body: unknown, idempotencyKey?: string): Promise<T>;
}

const ANSWER_WITHIN_MS = 15_000;

export function apiOf(url: string, token: string): Api {
  const call = async <T>(method: string, path: string, body?: unknown, idempotencyKey?: string): Promise<T> => {
    const response = await fetch(url + path, {
      method,
      headers: { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...(idempotencyKey ? { 'idempotency-key': idempotencyKey } : {}) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    });
    const text = await response.text();
    const answer = parse(text);
    if (!response.ok) {
      const problem = (answer ?? {}) as { code?: string; detail?: string; title?: string; errors?: unknown };
      throw new ApiRefused(method, path, response.status, problem.code ?? '', [problem.detail ?? problem.title ?? '', problem.errors ? JSON.stringify(problem.errors) : ''].filter(Boolean).join(' '));
    }
    return answer as T;
  };
  return { get: (path) => call('GET', path), post: (path, body, idempotencyKey) => call('POST', path, body, idempotencyKey) };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
