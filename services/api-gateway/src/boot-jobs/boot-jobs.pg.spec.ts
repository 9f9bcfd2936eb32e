/* Boot jobs through the gateway; that guests run them is shown by e2e/cloud-init.spec.ts. */
import { generateKeyPairSync } from 'node:crypto';
import { type BootRun, bootSecretPurpose } from '@chronovirt/contracts/boot-job/boot-job';
import type { VmId } from '@chronovirt/contracts/ids';
import { unseal } from '@chronovirt/messaging/seal';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BootJobAnswer, BootRunAnswer } from '../answers.ts';
import { ids, obliging, requested, startTestingGateway, type TestingGateway, until } from '../testing-gateway.os.ts';
import { builtInJobs } from './built-in.os.ts';

let gateway: TestingGateway;
const { x, d } = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' });
const keys = { publicKey: String(x), privateKey: String(d) };
const nodeId = ids.nodeOf('sealed');
const vms: VmId[] = [];
const greet = {
  name: 'greet', script: '#!/bin/sh\necho hello\n', timeoutSeconds: 30,
  variables: [{ name: 'WHO', required: true }, { name: 'TIMES', type: 'integer', default: 1 }, { name: 'TOKEN', secret: true }, { name: 'QUIET', type: 'boolean' }],
};
const call = (...args: Parameters<TestingGateway['call']>) => gateway.call(...args);
const lastRun = (): BootRun => gateway.received.at(-1)?.data['addBootRun'] as unknown as BootRun;

beforeAll(async () => {
  gateway = await startTestingGateway();
  await gateway.append(`node-${nodeId}`, { type: 'NodeRegistered', data: { nodeId, name: 'sealed', machineId: 'sealed', credentialKey: `U${'A'.repeat(55)}`, sealKey: keys.publicKey } });
  for (const name of ['one', 'two']) {
    const vmId: VmId = `vm_${ids.digits(name)}`;
    const operationId = `op_${ids.digits(name)}`;
    vms.push(vmId);
    await gateway.append(`vm-${vmId}`, requested({ data: { vmId, operationId, name, vcpus: 1, memoryMib: 128, diskGib: 1 } }), { type: 'VmPlaced', data: { operationId, nodeId, poolId: ids.pool, generation: 1, decision: {} } });
    await until(async () => (await call('GET', `/v1/vms/${vmId}`)).json?.nodeId === nodeId);
  }
  gateway.obey.set('scheduler', (envelope) => {
    if (envelope.type !== 'ReconfigureVm') return obliging(envelope);
    const { operationId, addBootRun } = envelope.data;
    return { stream: `vm-${envelope.target}`, decision: [{ type: 'VmReconfigureRequested', data: { operationId, change: { addBootRun } } }, { type: 'VmReconfigured', data: { operationId, change: { addBootRun }, nic: null, volume: null, pending: [] } }] };
  });
});
afterAll(async () => { await gateway?.close(); });

describe('A boot job', () => {
  let id = '';

  it('is made under a name of its own, changed by revisions, and forgotten; those of the platform stay', async () => {
    const made = await call('POST', '/v1/boot-jobs', { body: greet });
    expect([made.status, BootJobAnswer.parse(made.json).revision, made.headers.get('etag')]).toEqual([201, 1, '"1"']);
    id = made.json.id as string;
    expect((await call('POST', '/v1/boot-jobs', { body: greet })).status).toBe(201);
    expect(await call('POST', '/v1/boot-jobs', { body: { ...greet, script: '#!/bin/sh\n' } })).toMatchObject({ status: 409, json: { code: 'boot_job.name_taken' } });
    expect(await call('POST', '/v1/boot-jobs', { body: { name: 'add-swap', script: '#!/bin/sh\n' } })).toMatchObject({ status: 409, json: { code: 'boot_job.name_taken' } });
    const { name: _, ...change } = greet;
    const changed = await call('PUT', `/v1/boot-jobs/${id}`, { body: { ...change, description: 'says hello' }, headers: { 'if-match': '"1"' } });
    expect([changed.status, changed.json.revision, changed.json.description]).toEqual([200, 2, 'says hello']);
    expect(await call('PUT', `/v1/boot-jobs/${id}`, { body: change, headers: { 'if-match': '"1"' } })).toMatchObject({ status: 412, json: { because: { changed: { description: { is: 'says hello' } } } } });
    for (const method of ['PUT', 'DELETE']) expect(await call(method, `/v1/boot-jobs/${builtInJobs[0]?.id ?? ''}`, method === 'PUT' ? { body: change } : {})).toMatchObject({ status: 409, json: { code: 'boot_job.built_in' } });

    expect((await call('DELETE', `/v1/boot-jobs/${id}`)).status).toBe(204);
    expect(await call('GET', `/v1/boot-jobs/${id}`)).toMatchObject({ status: 404, json: { code: 'boot_job.not_found' } });
    expect((await call('POST', '/v1/boot-jobs', { body: greet })).json).toMatchObject({ id, revision: 3 });
  });

  it('that is none is refused, each field named', async () => {
    const bad = await call('POST', '/v1/boot-jobs', { body: { name: 'bad', script: 'echo', variables: [{ name: 'path' }, { name: 'A', type: 'integer', default: 'x' }, { name: 'B', secret: true, default: 'leaks' }], timeoutSeconds: 0 } });
    expect([bad.status, (bad.json.errors as { path: string }[]).map(({ path }) => path)]).toEqual([400, ['body.script', 'body.variables.0.name', 'body.variables.1.default', 'body.variables.2.default', 'body.timeoutSeconds']]);
    expect(await call('POST', '/v1/boot-jobs', { body: { name: 'twice', script: '#!/bin/sh', variables: [{ name: 'A' }, { name: 'A' }] } })).toMatchObject({ status: 400, json: { errors: [{ path: 'body.variables' }] } });
  });

  it('is listed behind those that came with the platform, of which its own are hidden', async () => {
    const names = async (query: string): Promise<readonly string[]> => ((await call('GET', `/v1/boot-jobs${query}`)).json.items as { name: string }[]).map(({ name }) => name);
    expect((await names('')).at(-1)).toBe('greet');
    expect(await names('')).not.toContain('reset-password');
    expect(await names('?system=true')).toContain('reset-password');
  });

  it('goes to a VM with what it is now and what it is told; a secret sealed, and nowhere else', async () => {
    const [vmId] = vms;
    const answer = await call('POST', `/v1/vms/${vmId ?? ''}/boot-jobs`, { body: { job: 'greet', variables: { WHO: 'wörld', TOKEN: 'canary-job-1', QUIET: true } } });
    expect([answer.status, answer.json.vm.bootRuns]).toEqual([202, [{ runId: answer.json.runId, jobId: id, name: 'greet', revision: 3, system: false }]]);
    const run = lastRun();
    expect(run).toMatchObject({ script: greet.script, timeoutSeconds: 30, nodeId, variables: [{ name: 'WHO', value: 'wörld' }, { name: 'TIMES', value: '1' }, { name: 'TOKEN' }, { name: 'QUIET', value: 'true' }] });
    const sealed = run.variables.find((one) => 'sealed' in one);
    expect(unseal(keys, sealed !== undefined && 'sealed' in sealed ? sealed.sealed : '', bootSecretPurpose(vmId ?? 'vm_', run.runId, 'TOKEN'))).toBe('canary-job-1');
    expect(JSON.stringify([answer.text, gateway.received, (await call('GET', '/v1/events?limit=1000')).text])).not.toContain('canary-job');

    const [shown] = (await call('GET', `/v1/boot-runs?vm=${vmId ?? ''}`)).json.items as unknown[];
    expect(BootRunAnswer.parse(shown)).toMatchObject({ id: run.runId, status: 'pending', output: null });
    expect(((await call('GET', '/v1/vms?bootRuns=pending')).json.items as { id: string }[]).map((vm) => vm.id)).toEqual([vmId]);
    expect(((await call('GET', '/v1/vms?bootRuns=none')).json.items as { id: string }[]).map((vm) => vm.id)).toEqual([vms[1]]);
    await gateway.append(`vm-${vmId ?? ''}`, { type: 'VmBootJobEnded', data: { runId: run.runId, exitCode: 4, output: 'so it went' } });
    await until(async () => (await call('GET', `/v1/boot-runs/${run.runId}`)).json?.status === 'failed');
    expect((await call('GET', `/v1/boot-runs/${run.runId}`)).json).toMatchObject({ exitCode: 4, output: 'so it went' });
    expect((await call('GET', '/v1/vms?bootRuns=pending')).json.items).toEqual([]);
  });

  it('with a key goes to it once, whatever its secrets are', async () => {
    const [vmId] = vms;
    const ask = (TOKEN: string, WHO = 'me') => call('POST', `/v1/vms/${vmId ?? ''}/boot-jobs`, { body: { job: id, variables: { WHO, TOKEN } }, headers: { 'idempotency-key': 'run 1' } });
    const [first, second] = [await ask('canary-a'), await ask('canary-b')];
    expect([first.status, second.json.operation.id, second.json.runId]).toEqual([202, first.json.operation.id, first.json.runId]);
    expect(await ask('canary-a', 'you')).toMatchObject({ status: 409, json: { code: 'idempotency.key_reused' } });
  });

  it('goes to many at once, or to none when what it is told does not fit', async () => {
    const head = await gateway.head();
    const path = `/v1/boot-jobs/${id}/runs`;
    expect(await call('POST', path, { body: { vms, variables: {} } })).toMatchObject({ status: 400, json: { errors: [{ path: 'body.variables.WHO' }] } });
    expect(await call('POST', path, { body: { vms: [`vm_${ids.digits('nobody')}`], variables: { WHO: 'x' } } })).toMatchObject({ status: 404, json: { code: 'vm.not_found' } });
    const said = await call('POST', `${path}?dryRun=true`, { body: { vms, variables: { WHO: 'all' } } });
    expect((said.json.members as { vmId: string; events: unknown[] }[]).map((member) => [member.vmId, member.events.length])).toEqual(vms.map((vmId) => [vmId, 2]));
    expect(await gateway.head()).toBe(head);
    const done = await call('POST', path, { body: { vms: [...vms, ...vms.slice(0, 1)], variables: { WHO: 'all', TOKEN: 'canary-many' } } });
    expect([done.status, (done.json.runs as { vmId: string }[]).map((run) => run.vmId)]).toEqual([202, vms]);
    await until(async () => ((await call('GET', `/v1/boot-runs?status=pending&job=${id}`)).json.items as { vmId: string }[]).filter(({ vmId }) => vmId === vms[1]).length === 1);
    expect(JSON.stringify([gateway.received, (await call('GET', '/v1/events?limit=1000')).text])).not.toContain('canary-many');
  });

  it('is given to a VM that is made; what is secret is not, for there is no node yet', async () => {
    const wish = { name: 'new', network: 'n', vcpus: 1, memoryMib: 64, diskGib: 1, cloudInit: {} };
    expect(await call('POST', '/v1/vms', { body: { ...wish, bootJobs: [{ job: 'greet', variables: { WHO: 'x', TOKEN: 'canary-new' } }] } })).toMatchObject({ status: 400, json: { errors: [{ path: 'body.bootJobs.0.variables.TOKEN', code: 'not_yet' }] } });
    expect(await call('POST', '/v1/vms', { body: { ...wish, bootJobs: [{ job: 'no-such' }] } })).toMatchObject({ status: 422, json: { code: 'boot_job.unknown' } });
    expect((await call('POST', '/v1/vms', { body: { ...wish, bootJobs: [{ job: 'greet', variables: { WHO: 'x' } }, { job: 'add-swap' }] } })).status).toBe(202);
    expect((gateway.received.at(-1)?.data['bootRuns'] as unknown as BootRun[]).map(({ name, nodeId: node, variables }) => [name, node, variables])).toEqual([['greet', null, [{ name: 'WHO', value: 'x' }, { name: 'TIMES', value: '1' }]], ['add-swap', null, [{ name: 'SIZE_MIB', value: '1024' }]]]);
  });

  it('sets the password of a VM that does not run', async () => {
    const [, vmId] = vms;
    await gateway.append(`vm-${vmId ?? ''}`, { type: 'VmObserved', data: { nodeId, session: 1, sequence: 1, generation: 1, state: 'stopped', reason: 'x' } }, { type: 'VmOperationDone', data: { operationId: `op_${ids.digits('two')}`, how: 'x' } });
    await until(async () => (await call('GET', `/v1/vms/${vmId ?? ''}`)).json?.observed?.state === 'stopped');
    const answer = await call('POST', `/v1/vms/${vmId ?? ''}/password`, { body: { user: 'root', password: 'canary-later', method: 'next-boot' } });
    expect([answer.status, answer.json.method, lastRun().name, lastRun().system]).toEqual([202, 'next-boot', 'reset-password', true]);
    expect(JSON.stringify([gateway.received, (await call('GET', '/v1/events?limit=1000')).text])).not.toContain('canary-later');
    expect(((await call('GET', `/v1/boot-runs?vm=${vmId ?? ''}`)).json.items as { job: { system: boolean } }[]).some(({ job }) => job.system)).toBe(false);
  });
});
