/* Every kind of bad request: its status, its stable code, every bad field; and nothing of it in the log. */
import { request as httpRequest } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ProblemAnswer } from './answers.ts';
import { adminToken, ids, installation, obliging, startTestingGateway, type TestingGateway, until, wish } from './testing-gateway.os.ts';

let gateway: TestingGateway;
beforeAll(async () => {
  gateway = await startTestingGateway();
  gateway.obey.set('scheduler', obliging);
});
afterAll(async () => { await gateway?.close(); });

interface Bad {
  readonly what: string;
  readonly method?: string;
  readonly path?: string;
  readonly body?: unknown;
  readonly raw?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly token?: string | null;
  readonly status: number;
  readonly code: string;
  /** Paths of all bad fields, in order. */
  readonly fields?: readonly string[];
}

const vm = `vm_${ids.digits('nobody')}`;
const table: readonly Bad[] = [
  { what: 'wrong types, every one named', body: { ...wish('a'), vcpus: 'two', memoryMib: 1.5, tags: 'web' }, status: 400, code: 'request.malformed', fields: ['body.vcpus', 'body.memoryMib', 'body.tags'] },
  { what: 'missing fields, every one named', body: { name: 'a' }, status: 400, code: 'request.malformed', fields: ['body.network', 'body.vcpus', 'body.memoryMib', 'body.diskGib'] },
  { what: 'unknown fields, every one named', body: { ...wish('a'), cpu: 1, colour: 'red' }, status: 400, code: 'request.malformed', fields: ['body.cpu', 'body.colour'] },
  { what: 'absurd sizes', body: wish('a', { vcpus: 1e9, memoryMib: -5, diskGib: 1e300 }), status: 400, code: 'request.malformed', fields: ['body.vcpus', 'body.memoryMib', 'body.diskGib'] },
  { what: 'a name that no DNS would take', body: wish('../../etc/passwd'), status: 400, code: 'request.malformed', fields: ['body.name'] },
  { what: 'NUL in a text', body: wish('a', { description: 'x\u0000y' }), status: 400, code: 'request.malformed', fields: ['body.description'] },
  { what: 'half a character', raw: JSON.stringify(wish('a')).replace('"tiny"', '"\\ud800"'), status: 400, code: 'request.malformed', fields: ['body.image'] },
  { what: 'too many at once', body: wish('a', { count: 100_000 }), status: 400, code: 'request.malformed', fields: ['body.count'] },
  { what: 'names that would grow too long', body: wish('a'.repeat(63), { count: 10 }), status: 400, code: 'request.malformed', fields: ['body.name'] },
  { what: 'keys, a host name and data that no cloud-init takes', body: wish('a', { cloudInit: { hostname: '-a', sshKeys: ['ssh-ed25519 AAAA ok', 'rsa AAAA', 'ssh-rsa AAAA a\nssh-rsa BBBB b'], userData: 'runcmd: []', networkConfig: 'x'.repeat(65_536), password: 'secret' } }), status: 400, code: 'request.malformed', fields: ['body.cloudInit.hostname', 'body.cloudInit.sshKeys.1', 'body.cloudInit.sshKeys.2', 'body.cloudInit.userData', 'body.cloudInit.networkConfig', 'body.cloudInit.password'] },
  { what: 'user-data and a network that are no YAML', body: wish('a', { cloudInit: { userData: '#cloud-config\nruncmd: [', networkConfig: 'version: 7' } }), status: 400, code: 'request.malformed', fields: ['body.cloudInit.userData', 'body.cloudInit.networkConfig'] },
  { what: 'new words for a guest that are none', method: 'PATCH', path: `/v1/vms/${vm}/hardware`, body: { hostname: 'a_b', cloudInit: { sshKeys: ['x'] } }, status: 400, code: 'request.malformed', fields: ['body.hostname', 'body.cloudInit.sshKeys.0'] },
  { what: 'new user-data that is no YAML', method: 'PATCH', path: `/v1/vms/${vm}/hardware`, body: { cloudInit: { userData: '#cloud-config\na: [' } }, status: 400, code: 'request.malformed', fields: ['body.cloudInit.userData'] },
  { what: 'a list for a body', body: [wish('a')], status: 400, code: 'request.malformed', fields: ['body'] },
  { what: 'no body', status: 400, code: 'request.malformed', fields: ['body'] },
  { what: 'an empty body that claims to be JSON', raw: '', headers: { 'content-type': 'application/json' }, status: 400, code: 'request.empty_body' },
  { what: 'broken JSON', raw: '{"name": "a", ', status: 400, code: 'request.broken_json' },
  { what: 'JSON that reaches for the prototype', raw: '{"name":"a","__proto__":{"admin":true}}', status: 400, code: 'request.broken_json' },
  { what: 'a body of 10 MB', raw: JSON.stringify(wish('a', { description: 'x'.repeat(10_000_000) })), status: 413, code: 'request.too_large' },
  { what: 'a form', raw: 'name=a', headers: { 'content-type': 'application/x-www-form-urlencoded' }, status: 415, code: 'request.content_type' },
  { what: 'plain text', raw: 'a', headers: { 'content-type': 'text/plain' }, status: 415, code: 'request.content_type' },
  { what: 'a key of control characters', body: wish('a'), headers: { 'idempotency-key': 'a\tb' }, status: 400, code: 'request.malformed', fields: ['header.Idempotency-Key'] },
  { what: 'a key without end', body: wish('a'), headers: { 'idempotency-key': 'k'.repeat(256) }, status: 400, code: 'request.malformed', fields: ['header.Idempotency-Key'] },
  { what: 'no token', body: wish('a'), token: null, status: 401, code: 'auth.token_missing' },
  { what: 'no token and 10 MB', raw: 'x'.repeat(10_000_000), token: null, status: 401, code: 'auth.token_missing' },
  { what: 'a token of no form', body: wish('a'), token: 'letmein', status: 401, code: 'auth.token_malformed' },
  { what: 'another scheme', body: wish('a'), token: null, headers: { authorization: 'Basic YWRtaW46YWRtaW4=' }, status: 401, code: 'auth.token_malformed' },
  { what: 'a token of another installation', body: wish('a'), token: adminToken.replace(installation, 'ffffffff'), status: 401, code: 'auth.token_of_another_installation' },
  { what: 'a token that nobody issued', body: wish('a'), token: `cv_${installation}_${'A'.repeat(43)}`, status: 401, code: 'auth.token_unknown' },
  { what: 'a path that does not exist', method: 'GET', path: '/v1/machines', status: 404, code: 'route.not_found' },
  { what: 'a method that a path does not take', method: 'PUT', path: '/v1/vms', body: {}, status: 405, code: 'route.method_not_allowed' },
  { what: 'a method that one VM does not take', method: 'PUT', path: `/v1/vms/${vm}`, body: {}, status: 405, code: 'route.method_not_allowed' },
  { what: 'an id of no form', method: 'GET', path: '/v1/vms/42', status: 400, code: 'request.malformed', fields: ['param.id'] },
  { what: 'an id of another kind', method: 'GET', path: `/v1/vms/${ids.nodeOf('a')}`, status: 400, code: 'request.malformed', fields: ['param.id'] },
  { what: 'a path that cannot be read', method: 'GET', path: '/v1/vms/%zz', status: 400, code: 'request.bad_uri' },
  { what: 'a VM that does not exist', method: 'GET', path: `/v1/vms/${vm}`, status: 404, code: 'vm.not_found' },
  { what: 'an operation that does not exist', method: 'GET', path: `/v1/operations/op_${ids.digits('x')}`, status: 404, code: 'operation.not_found' },
  { what: 'fields on an action', path: `/v1/vms/${vm}/start`, body: { now: true }, status: 400, code: 'request.malformed', fields: ['body.now'] },
  { what: 'a timeout without end', path: `/v1/vms/${vm}/stop`, body: { timeoutSeconds: 1e9, force: 'yes' }, status: 400, code: 'request.malformed', fields: ['body.timeoutSeconds', 'body.force'] },
  { what: 'a force that is neither', method: 'DELETE', path: `/v1/vms/${vm}?force=please`, status: 400, code: 'request.malformed', fields: ['query.force'] },
  { what: 'filters, sorts and limits that do not exist', method: 'GET', path: '/v1/vms?colour=red&sort=size&limit=5000&count=maybe&status=gone&memoryMib[like]=1', status: 400, code: 'request.malformed', fields: ['query.colour', 'query.status', 'query.memoryMib[like]', 'query.sort', 'query.limit', 'query.count'] },
  { what: 'a cursor of somewhere else', method: 'GET', path: '/v1/vms?cursor=abc', status: 400, code: 'request.malformed', fields: ['query.cursor'] },
  { what: 'a position that is none', method: 'GET', path: '/v1/vms', headers: { 'cv-at-least': 'now' }, status: 400, code: 'request.malformed', fields: ['header.Cv-At-Least'] },
  { what: 'events behind nothing', method: 'GET', path: '/v1/events?after=-1', status: 400, code: 'request.malformed', fields: ['query.after'] },
  { what: 'a network that is none', path: '/v1/networks', body: { name: 'n', cidr: '10.0.0.0', kind: 'vlan' }, status: 400, code: 'request.malformed', fields: ['body.kind', 'body.cidr'] },
  { what: 'an image that is a path', path: '/v1/images', body: { name: 'i', file: '../../etc/shadow', format: 'qcow2', sha256: 'x', sizeBytes: 0 }, status: 400, code: 'request.malformed', fields: ['body.file', 'body.sha256', 'body.sizeBytes'] },
  { what: 'a join without a join token', path: '/v1/nodes/join', token: null, body: {}, status: 400, code: 'request.malformed', fields: ['body.name', 'body.machineId', 'body.credentialKey', 'body.sealKey'] },
];

describe('a bad request', () => {
  it.each(table)('$what: $status $code', async ({ method = 'POST', path = '/v1/vms', status, code, fields, what: _, ...rest }) => {
    const head = await gateway.head();
    const answer = await gateway.call(method, path, rest);
    expect({ status: answer.status, code: answer.json?.code, fields: (answer.json?.errors as { path: string }[] | undefined)?.map((error) => error.path) }).toEqual({ status, code, fields });
    expect(answer.headers.get('content-type')).toBe('application/problem+json; charset=utf-8');
    expect(ProblemAnswer.parse(answer.json).status).toBe(status);
    expect(await gateway.head()).toBe(head);
  });

  it('of 10 MB is refused before it is read, and the connection closed', async () => {
    const status = await new Promise<number>((resolve, reject) => {
      const sending = httpRequest(`${gateway.url}/v1/vms`, { method: 'POST', headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json', 'content-length': 10_000_000 } }, (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      });
      sending.on('error', reject);
      sending.write('{"name":"');
    });
    expect(status).toBe(413);
  });

  it('is not a DELETE that says JSON and has no body, as many clients do', async () => {
    const { json } = await gateway.call('POST', '/v1/tokens', { body: { name: 'short-lived' } });
    expect((await gateway.call('DELETE', `/v1/tokens/${String(json.id)}`, { raw: '', headers: { 'content-type': 'application/json' } })).status).toBe(204);
    expect(await gateway.call('DELETE', `/v1/tokens/${String(json.id)}`, { raw: '{', headers: { 'content-type': 'application/json' } })).toMatchObject({ status: 400, json: { code: 'request.broken_json' } });
  });

  it('is counted by its code', async () => {
    const { text } = await gateway.call('GET', '/metrics', { token: null });
    expect(/cv_http_problems_total\{code="request.malformed",status="400"\} \d\d/.test(text)).toBe(true);
    expect(text.includes(`route="/v1/vms"`)).toBe(true);
    expect(text.includes("/v1/machines")).toBe(false);
  });

  it('says which methods a path takes', async () => {
    expect((await gateway.call('PUT', '/v1/vms', { body: {} })).headers.get('allow')).toContain('POST');
  });

  it('has a revoked token', async () => {
    const { json: issued } = await gateway.call('POST', '/v1/tokens', { body: { name: 'ci' } });
    expect((await gateway.call('GET', '/v1/vms', { token: issued.token as string })).status).toBe(200);
    expect((await gateway.call('DELETE', `/v1/tokens/${String(issued.id)}`)).status).toBe(204);
    expect(await gateway.call('GET', '/v1/vms', { token: issued.token as string })).toMatchObject({ status: 401, json: { code: 'auth.token_revoked' } });
    const { text } = await gateway.call('GET', '/v1/tokens');
    expect(text).not.toContain(issued.token);
    expect(text).not.toContain('sha256');
  });

  it('leaves nothing of a token in the log', async () => {
    const { json: issued } = await gateway.call('POST', '/v1/tokens', { body: { name: 'canary' } });
    const events = await gateway.call('GET', '/v1/events?limit=1000');
    expect(events.text).toContain(issued.id);
    expect(events.text).not.toContain((issued.token as string).slice(12));
  });
});

describe('the API', () => {
  it('describes itself as OpenAPI 3.1, every reference resolved', async () => {
    const { json, status } = await gateway.call('GET', '/v1/openapi.json', { token: null });
    expect(status).toBe(200);
    expect(json.openapi).toBe('3.1.0');
    const references = [...JSON.stringify(json).matchAll(/"#\/components\/schemas\/([^"]+)"/g)].map(([, name]) => name);
    expect(references.filter((name) => json.components.schemas[name ?? ''] === undefined)).toEqual([]);
    expect(json.paths['/v1/vms'].post.requestBody.content['application/json'].schema).toEqual({ $ref: '#/components/schemas/CreateVm' });
    expect(json.components.schemas.CreateVm.properties.vcpus).toMatchObject({ type: 'integer', minimum: 1, maximum: 256 });
    expect(Object.keys(json.paths)).toEqual(expect.arrayContaining(['/v1/vms/{id}/stop', '/v1/operations/{id}', '/v1/events', '/v1/vms/{id}/history', '/v1/nodes/join', '/readyz']));
  });

  it('says in plain words whether it is ready', async () => {
    const report = await until(async () => { const read = await gateway.call('GET', '/readyz', { token: null }); return read.status === 200 ? (read.json as object) : undefined; });
    expect(report).toMatchObject({ ready: true, parts: expect.arrayContaining([expect.objectContaining({ name: 'Postgres', ok: true }), expect.objectContaining({ name: 'NATS', ok: true }), expect.objectContaining({ name: 'projections', ok: true }), { name: 'nodes', ok: true, says: 'no node has joined yet: VMs have nowhere to run' }]) });
    expect((await gateway.call('GET', '/livez', { token: null })).json).toEqual({ live: true });
  });

  it('sends headers that keep browsers from guessing', async () => {
    const { headers } = await gateway.call('GET', '/v1/vms');
    expect(Object.fromEntries(['x-content-type-options', 'x-frame-options', 'cache-control'].map((name) => [name, headers.get(name)]))).toEqual({ 'x-content-type-options': 'nosniff', 'x-frame-options': 'DENY', 'cache-control': 'no-store' });
  });
});
