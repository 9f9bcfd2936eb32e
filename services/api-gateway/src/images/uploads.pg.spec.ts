/* Bytes that come in: by the tus protocol, from a URL, and from nodes; through a real gateway. */
import { hash, randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createAgentKey } from '@chronovirt/messaging/credentials';
import { signRequest } from '@chronovirt/messaging/node-signature';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { adminToken, type Called, ids, startTestingGateway, type TestingGateway, until } from '../testing-gateway.os.ts';
import { HOSTILE, soundQcow2 } from '@chronovirt/contracts/image/testing-qcow2';

let gateway: TestingGateway;
const dir = mkdtempSync(join(tmpdir(), 'cv-bytes-'));
const MIB = 2 ** 20;
const key = createAgentKey();
const nodeId = ids.nodeOf('bringer');

beforeAll(async () => {
  gateway = await startTestingGateway({ images: { dir, bytesMax: 16 * MIB, totalBytesMax: 64 * MIB, uploadsMax: 4, uploadMs: 3_600_000, keepMs: 3_600_000, importNetworks: ['127.0.0.1/32'] } });
  gateway.obey.set('storage', ({ target, data }) => ({ stream: `image-${target}`, decision: [{ type: 'ImageRegistered', data }] }));
  await gateway.append(`node-${nodeId}`, { type: 'NodeRegistered', data: { nodeId, name: 'bringer', machineId: 'm', credentialKey: key.publicKey, sealKey: 'x'.repeat(43) } });
});
afterAll(() => gateway?.close());

const sum = (bytes: Buffer): string => hash('sha256', bytes, 'hex');
const spoken = { 'tus-resumable': '1.0.0' };
const metadata = (fields: Readonly<Record<string, string>>): string => Object.entries(fields).map(([name, value]) => `${name} ${Buffer.from(value).toString('base64')}`).join(',');
const begin = (bytes: number, fields: Readonly<Record<string, string>>, headers = {}): Promise<Called> =>
  gateway.call('POST', '/v1/images/uploads', { headers: { ...spoken, 'upload-length': String(bytes), 'upload-metadata': metadata(fields), ...headers } });
const send = (path: string, offset: number, bytes: Buffer, headers = {}): Promise<Called> =>
  gateway.call('PATCH', path, { raw: bytes as never, headers: { ...spoken, 'content-type': 'application/offset+octet-stream', 'upload-offset': String(offset), ...headers } });
const look = (path: string): Promise<Called> => gateway.call('HEAD', path, { headers: spoken });
const pathOf = (called: Called): string => called.headers.get('location') ?? '';
const upload = async (name: string, format: string, file: Buffer): Promise<Called> => send(pathOf(await begin(file.length, { name, format, sha256: sum(file) })), 0, file);
/** What became of it is told a moment before its bytes go. */
const nothingOnItsWay = () => until(() => Promise.resolve(readdirSync(join(dir, 'parts')).length === 0));
const imageCalled = async (name: string) => ((await gateway.call('GET', '/v1/images')).json.items as { name: string; id: string; sha256: string; file: string; sizeBytes: number; virtualBytes: number; minDiskGib: number }[]).find((image) => image.name === name);

describe('An upload', () => {
  it('offers what it can', async () => {
    const { status, headers } = await gateway.call('OPTIONS', '/v1/images/uploads', { token: null });
    expect([status, headers.get('tus-version'), headers.get('tus-extension'), headers.get('tus-max-size')]).toEqual([204, '1.0.0', 'creation,termination,expiration,checksum', String(16 * MIB)]);
  });

  it('comes in pieces and becomes an image', async () => {
    const file = soundQcow2();
    const begun = await begin(file.length, { name: 'pieces', format: 'qcow2', sha256: sum(file), osFamily: 'linux', osVersion: '12', arch: 'x86_64', features: 'cloud-init,qemu-guest-agent', tags: 'a,b', minMemoryMib: '128', filename: 'x.qcow2' });
    expect(begun.status, begun.text).toBe(201);
    expect(Date.parse(begun.headers.get('upload-expires') ?? '')).toBeGreaterThan(Date.now());
    const path = pathOf(begun);
    expect((await send(path, 0, file.subarray(0, 1_000))).headers.get('upload-offset')).toBe('1000');
    const half = await look(path);
    expect([half.headers.get('upload-offset'), half.headers.get('upload-length')]).toEqual(['1000', String(file.length)]);
    expect(await send(path, 999, file.subarray(999))).toMatchObject({ status: 409, json: { code: 'upload.other_offset', because: { offset: 1_000 } } });
    const last = await send(path, 1_000, file.subarray(1_000));
    expect(last.status, last.text).toBe(204);
    expect(await imageCalled('pieces')).toMatchObject({ sha256: sum(file), file: `${sum(file)}.qcow2`, sizeBytes: file.length, virtualBytes: 2 ** 30, minDiskGib: 1, minMemoryMib: 128, osFamily: 'linux', osVersion: '12', arch: 'x86_64', features: ['cloud-init', 'qemu-guest-agent'], tags: ['a', 'b'] });
    expect(await gateway.call('GET', `/v1/operations/${last.headers.get('cv-operation') ?? ''}`)).toMatchObject({ json: { kind: 'import-image', status: 'succeeded', percent: 100 } });
    // Whoever did not hear the last answer asks how far it is, and must not begin again.
    expect((await look(path)).headers.get('upload-offset')).toBe(String(file.length));
    expect((await send(path, file.length, Buffer.alloc(0))).status).toBe(204);
    await nothingOnItsWay();
  });

  it('goes on after its connection broke in the middle', async () => {
    const file = Buffer.concat([randomBytes(4 * MIB)]);
    const path = pathOf(await begin(file.length, { name: 'cut', format: 'raw', sha256: sum(file) }));
    const { hostname, port } = new URL(gateway.url);
    const socket = connect(Number(port), hostname);
    socket.on('error', () => undefined);
    const authorization = adminToken;
    socket.write(`PATCH ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${authorization}\r\nTus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\nContent-Length: ${String(file.length)}\r\n\r\n`);
    socket.write(file.subarray(0, 3 * MIB));
    await until(async () => Number((await look(path)).headers.get('upload-offset')) === 3 * MIB);
    // A second sender takes over although the first connection is still there.
    expect((await send(path, 3 * MIB, file.subarray(3 * MIB))).status).toBe(204);
    socket.destroy();
    expect(await imageCalled('cut')).toMatchObject({ sha256: sum(file) });
  });

  it('checks a piece against its sum, and keeps none of it when it is damaged', async () => {
    const file = randomBytes(4_096);
    const path = pathOf(await begin(file.length, { name: 'summed', format: 'raw', sha256: sum(file) }));
    const of = (bytes: Buffer): string => `sha1 ${hash('sha1', bytes, 'base64')}`;
    expect(await send(path, 0, file, { 'upload-checksum': of(randomBytes(4_096)) })).toMatchObject({ status: 460, json: { code: 'upload.chunk_damaged' } });
    expect((await look(path)).headers.get('upload-offset')).toBe('0');
    expect((await send(path, 0, file, { 'upload-checksum': of(file) })).status).toBe(204);
  });

  it.each(HOSTILE)('of a qcow2 with %s is refused and leaves nothing', async (_what, file, code) => {
    const told = await upload(`hostile-${randomBytes(4).toString('hex')}`, 'qcow2', file);
    expect([told.status, told.json.code], told.text).toEqual([422, code]);
    await nothingOnItsWay();
    expect(readdirSync(join(dir, 'contents'))).not.toContain(sum(file));
  });

  it('that qemu-img finds a fault with that we do not see is refused', async () => {
    // A disk inside of 1 GiB, and a table of reference counts that says nothing: our reader does not look into tables.
    const file = soundQcow2();
    file.writeUInt32BE(7, 100 - 4); // reference counts of 128 bits are refused by both
    expect((await upload('broken-inside', 'qcow2', file)).json.code).toBe('image.header_invalid');
  });

  it('with another sum, another format or more bytes than was said is refused', async () => {
    const file = randomBytes(1_024);
    const other = pathOf(await begin(file.length, { name: 'other-sum', format: 'raw', sha256: 'a'.repeat(64) }));
    expect(await send(other, 0, file)).toMatchObject({ status: 422, json: { code: 'image.checksum_mismatch', because: { found: sum(file) } } });
    expect((await upload('not-raw', 'raw', Buffer.concat([soundQcow2(), Buffer.alloc(496)]))).json.code).toBe('image.not_of_format');
    const short = pathOf(await begin(100, { name: 'short', format: 'raw', sha256: sum(file) }));
    expect(await send(short, 0, file)).toMatchObject({ status: 413, json: { code: 'upload.too_long' } });
    expect((await gateway.call('DELETE', short, { headers: spoken })).status).toBe(204);
    expect((await look(short)).status).toBe(404);
    expect(await imageCalled('other-sum')).toBeUndefined();
  });

  it('is refused where it makes no sense, or is too much', async () => {
    const good = { name: 'limits', format: 'raw', sha256: 'b'.repeat(64) };
    expect(await gateway.call('POST', '/v1/images/uploads', { headers: { 'upload-length': '1' } })).toMatchObject({ status: 412, json: { code: 'upload.other_version' } });
    expect((await begin(0, good)).status).toBe(400);
    expect(((await begin(1, { ...good, format: 'vmdk', sha256: 'x' })).json.errors as { path: string }[]).map(({ path }) => path)).toEqual(['metadata.format', 'metadata.sha256']);
    expect((await begin(17 * MIB, good)).json.code).toBe('upload.too_large');
    expect((await begin(1, { ...good, name: 'pieces' })).json.code).toBe('image.name_taken');
    expect((await begin(1, good, { 'if-match': '"1"' })).status).toBe(400);
    const three = await Promise.all([1, 2, 3].map((n) => begin(16 * MIB, { ...good, name: `limits-${String(n)}` })));
    expect(three.map(({ status }) => status)).toEqual([201, 201, 201]);
    expect(await begin(16 * MIB, { ...good, name: 'limits-4' })).toMatchObject({ status: 507, json: { code: 'image.store_full' } });
    expect((await begin(1, { ...good, name: 'limits-4' })).status).toBe(201);
    expect(await begin(1, { ...good, name: 'limits-5' })).toMatchObject({ status: 503, json: { code: 'upload.too_many' } });
    for (const name of readdirSync(join(dir, 'parts')).filter((one) => one.endsWith('.part'))) await gateway.call('DELETE', `/v1/images/uploads/${name.replace('.part', '')}`, { headers: spoken });
    expect((await gateway.call('POST', '/v1/images/uploads', { token: null, headers: spoken })).status).toBe(401);
  });
});

describe('An import', () => {
  const file = randomBytes(2 * MIB);
  let server: Server;
  let at = '';
  let breaks = 0;
  const asked: (string | undefined)[] = [];
  beforeAll(async () => {
    server = createServer((request, response) => {
      asked.push(request.headers.range);
      if (request.url === '/redirect') return void response.writeHead(302, { location: '/image' }).end();
      if (request.url === '/inside') return void response.writeHead(302, { location: 'http://169.254.169.254/latest' }).end();
      if (request.url === '/loop') return void response.writeHead(302, { location: '/loop' }).end();
      if (request.url !== '/image') return void response.writeHead(404).end();
      const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
      response.writeHead(from === 0 ? 200 : 206, { etag: '"one"', 'content-length': file.length - from, ...(from === 0 ? {} : { 'content-range': `bytes ${String(from)}-${String(file.length - 1)}/${String(file.length)}` }) });
      if (breaks-- > 0) return void response.write(file.subarray(from, from + MIB / 2), () => setTimeout(() => { response.destroy(); }, 50));
      response.end(file.subarray(from));
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    at = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
  });
  afterAll(() => { server?.close(); });
  const ask = (name: string, url: string, more = {}): Promise<Called> => gateway.call('POST', '/v1/images', { body: { name, url, format: 'raw', sha256: sum(file), ...more } });
  const ended = async ({ json }: Called) => until(async () => {
    const operation = await gateway.call('GET', `/v1/operations/${json.operation.id as string}`);
    return operation.json.endedAt === null ? undefined : operation.json as { status: string; error: { code: string; because: object } | null };
  }, 15_000);

  it('fetches an image, by way of a redirect', async () => {
    const begun = await ask('fetched', `${at}/redirect`);
    expect(begun.status, begun.text).toBe(202);
    expect(await ended(begun)).toMatchObject({ status: 'succeeded' });
    expect(await imageCalled('fetched')).toMatchObject({ sha256: sum(file), sizeBytes: file.length });
  });
  it('goes on where it broke off', async () => {
    const [name] = readdirSync(join(dir, 'contents')).filter((one) => one === sum(file));
    expect(name).toBeDefined();
    const before = asked.length;
    breaks = 2;
    const changed = Buffer.from(file);
    changed[0] = (changed[0] ?? 0) ^ 1;
    // Another sum is wanted, so that it is not the content that is there already; what comes is refused for it, whole.
    expect(await ended(await ask('broken', `${at}/image`, { sha256: sum(changed) }))).toMatchObject({ status: 'compensated', error: { code: 'image.checksum_mismatch', because: { found: sum(file) } } });
    expect(asked.slice(before)).toEqual([undefined, `bytes=${String(MIB / 2)}-`, `bytes=${String(MIB)}-`]);
    expect(await imageCalled('broken')).toBeUndefined();
    await nothingOnItsWay();
  });
  it('asks nobody whom it may not', async () => {
    const before = asked.length;
    for (const url of [`http://[::1]:${at.split(':')[2] ?? ''}/image`, 'http://169.254.169.254/latest/meta-data', 'http://10.0.0.1/x', 'http://0x7f000002/image', 'http://localhost.localdomain.invalid/', `${at}/inside`, `${at}/loop`, `${at}/nowhere`]) {
      const operation = await ended(await ask(`refused-${hash('sha1', url, 'hex').slice(0, 8)}`, url, { sha256: 'c'.repeat(64) }));
      expect([url, operation.status, operation.error?.code]).toEqual([url, 'compensated', expect.stringMatching(/^image\.(url_not_allowed|download_failed)$/)]);
    }
    expect(asked.length - before).toBe(1 + 6 + 1);
    expect((await ask('ftp', 'ftp://x.example/')).status).toBe(400);
    expect((await ask('secret', 'https://me:secret@x.example/')).status).toBe(400);
    expect((await ask('both', `${at}/image`, { file: 'x.raw', sizeBytes: 1 })).status).toBe(400);
    expect((await ask('fetched', `${at}/image`)).json.code).toBe('image.name_taken');
  });
  it('can be rehearsed', async () => {
    const said = await gateway.call('POST', '/v1/images?dryRun=true', { body: { name: 'thought', url: `${at}/image`, format: 'raw', sha256: sum(file) } });
    expect(said.json).toMatchObject({ dryRun: true, events: [{ type: 'ImageImportStarted' }] });
  });
});

describe('An image', () => {
  it('is downloaded whole or in part, and who does is recorded, once', async () => {
    const image = await imageCalled('fetched');
    const path = `/v1/images/${image?.id ?? ''}/content`;
    const head = await gateway.head();
    const whole = await fetch(gateway.url + path, { headers: { authorization: `Bearer ${adminToken}` } });
    expect([whole.status, whole.headers.get('content-disposition'), sum(Buffer.from(await whole.arrayBuffer()))]).toEqual([200, 'attachment; filename="fetched.raw"', image?.sha256]);
    const part = await gateway.call('GET', path, { headers: { range: 'bytes=10-19' } });
    expect([part.status, part.headers.get('content-range'), part.headers.get('content-length')]).toEqual([206, `bytes 10-19/${String(image?.sizeBytes)}`, '10']);
    expect((await gateway.call('GET', path, { headers: { range: 'bytes=10-19', 'if-range': '"other"' } })).status).toBe(200);
    expect((await gateway.call('GET', path, { token: null })).status).toBe(401);
    expect((await gateway.log.read(head, 10)).map(({ type, data, meta }) => [type, data['imageId'], meta.actor])).toEqual([['ImageDownloaded', image?.id, expect.stringMatching(/^token_/)]]);
    await gateway.append(`image-${ids.image}`, { type: 'ImageRegistered', data: { imageId: ids.image, name: 'on-nodes', file: 'x.qcow2', format: 'qcow2', sha256: 'd'.repeat(64), sizeBytes: 1, minDiskGib: 1, minMemoryMib: 64 } });
    await until(async () => await imageCalled('on-nodes') !== undefined);
    expect((await gateway.call('GET', `/v1/images/${ids.image}/content`)).json.code).toBe('image.not_stored');
  });
  it('is found by what is said of it', async () => {
    const names = async (query: string): Promise<readonly string[]> => ((await gateway.call('GET', `/v1/images?${query}`)).json.items as { name: string }[]).map(({ name }) => name);
    expect(await names('osFamily=linux')).toEqual(['pieces']);
    expect(await names('tag=b&format=qcow2')).toEqual(['pieces']);
    expect(await names('arch=x86_64&feature=qemu-guest-agent')).toEqual(['pieces']);
    for (const none of ['tag=c', 'arch=aarch64', 'osFamily=windows', 'feature=cloud']) expect(await names(none), none).toEqual([]);
    expect(await names(`tag=${encodeURIComponent("'; drop table x --")}`)).toEqual([]);
    expect((await gateway.call('GET', '/v1/images?colour=red')).status).toBe(400);
  });
  it('of a family is current while it is the newest, or was chosen', async () => {
    const version = async (n: number): Promise<string> => {
      const imageId = `image_${ids.digits(`version ${String(n)}`)}`;
      await gateway.append(`image-${imageId}`, { type: 'ImageRegistered', data: { imageId, name: `debian-${String(n)}`, family: 'debian', version: `12.${String(n)}`, file: 'x.qcow2', format: 'qcow2', sha256: 'd'.repeat(64), sizeBytes: 1, minDiskGib: 1, minMemoryMib: 64 } });
      return imageId;
    };
    const [first] = [await version(1), await version(2)];
    const current = async () => ((await gateway.call('GET', '/v1/images?family=debian')).json.items as { name: string; release: string; current: boolean; uses: number }[]).filter((image) => image.current).map(({ name, release, uses }) => [name, release, uses]);
    await until(async () => (await current()).length === 1 && await imageCalled('debian-2') !== undefined);
    expect(await current()).toEqual([['debian-2', '12.2', 0]]);
    gateway.obey.set('storage', ({ target }) => ({ stream: `image-${target}`, decision: [{ type: 'ImageMadeCurrent', data: { imageId: target, family: 'debian' } }] }));
    expect((await gateway.call('POST', `/v1/images/${first}/use`)).json).toMatchObject({ name: 'debian-1', current: true });
    expect(await current()).toEqual([['debian-1', '12.1', 0]]);
  });
});

describe('A node', () => {
  const signed = (method: string, path: string, seconds = Math.floor(Date.now() / 1_000), seed = key.seed) => ({ authorization: signRequest({ method, path, nodeId }, seed, seconds) });
  const call = (method: string, path: string, more: { raw?: Buffer; headers?: object } = {}): Promise<Called> =>
    gateway.call(method, path, { token: null, ...(more.raw === undefined ? {} : { raw: more.raw as never }), headers: { ...signed(method, path), ...(more.raw === undefined ? {} : { 'content-type': 'application/offset+octet-stream' }), ...more.headers } });

  it('fetches what images are made of, whole or in part', async () => {
    const image = await imageCalled('pieces');
    const path = `/v1/node/contents/${image?.sha256 ?? ''}`;
    const whole = await call('GET', path);
    expect([whole.status, whole.headers.get('etag'), whole.headers.get('content-length')]).toEqual([200, `"${image?.sha256 ?? ''}"`, String(image?.sizeBytes)]);
    const part = await call('GET', path, { headers: { range: 'bytes=0-3' } });
    expect([part.status, part.text.slice(0, 3), part.headers.get('content-range')]).toEqual([206, 'QFI', `bytes 0-3/${String(image?.sizeBytes)}`]);
    expect((await call('GET', path, { headers: { range: 'bytes=999999999-' } })).status).toBe(416);
    expect((await call('GET', `/v1/node/contents/${'e'.repeat(64)}`)).json.code).toBe('image.content_not_found');
    expect((await call('GET', `${path}/needed`)).json).toEqual({ needed: true });
    expect((await call('GET', `/v1/node/contents/${'e'.repeat(64)}/needed`)).json).toEqual({ needed: false });
    expect((await call('GET', `/v1/node/images/${image?.file ?? ''}`)).json).toEqual({ sums: [image?.sha256] });
    expect((await call('GET', '/v1/node/images/unheard-of.qcow2')).json).toEqual({ sums: [] });
  });
  it('must have signed it, lately, with its own key', async () => {
    const path = `/v1/node/contents/${'e'.repeat(64)}`;
    const told = async (headers: object) => (await gateway.call('GET', path, { token: null, headers: headers as never })).json.code as string;
    expect(await told({})).toBe('auth.token_missing');
    expect(await told({ authorization: `Bearer ${adminToken}` })).toBe('auth.token_missing');
    expect(await told(signed('GET', path, Math.floor(Date.now() / 1_000) - 400))).toBe('auth.signature_expired');
    expect(await told(signed('GET', `${path}x`))).toBe('auth.signature_unknown');
    expect(await told(signed('GET', path, undefined, createAgentKey().seed))).toBe('auth.signature_unknown');
    expect((await gateway.call('GET', '/v1/images', { token: null, headers: signed('GET', '/v1/images') })).status).toBe(401);
  });
  it('brings nothing that no operation waits for', async () => {
    const path = `/v1/node/parts/op_${'a'.repeat(32)}?offset=0&length=4`;
    expect((await call('PUT', path, { raw: Buffer.from('abcd') })).json.code).toBe('upload.not_expected');
  });
});
