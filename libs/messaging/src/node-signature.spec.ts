import { describe, expect, it } from 'vitest';
import { createAgentKey } from './credentials.ts';
import { readSignature, signRequest } from './node-signature.ts';

const nodeId = `node_${'a'.repeat(32)}`;
const request = { method: 'PUT', path: '/v1/node/parts/op_1?offset=0' };
const own = createAgentKey();
const other = createAgentKey();

describe('A request that a node signed', () => {
  const header = signRequest({ ...request, nodeId }, own.seed, 1_000);
  it('is known by the key with which the node joined', () => {
    expect(readSignature(header, request)).toMatchObject({ nodeId, seconds: 1_000 });
    expect(readSignature(header, request)?.by(own.publicKey)).toBe(true);
    expect(readSignature(header, request)?.by(other.publicKey)).toBe(false);
  });
  it('stands for this request, this node and this moment alone', () => {
    expect(readSignature(header, { ...request, method: 'GET' })?.by(own.publicKey)).toBe(false);
    expect(readSignature(header, { ...request, path: '/v1/node/parts/op_1?offset=1' })?.by(own.publicKey)).toBe(false);
    expect(readSignature(header.replace('.1000.', '.1001.'), request)?.by(own.publicKey)).toBe(false);
    expect(readSignature(header.replace(nodeId, `node_${'b'.repeat(32)}`), request)?.by(own.publicKey)).toBe(false);
  });
  it.each([undefined, '', 'Bearer cv_x', 'CvNode', `CvNode ${nodeId}.1000.short`, `${header}x`])('is nothing when it looks like %s', (value) => { expect(readSignature(value, request)).toBeUndefined(); });
});
