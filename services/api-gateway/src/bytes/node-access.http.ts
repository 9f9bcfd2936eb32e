import type { NodeId } from '@chronovirt/contracts/ids';
import { readSignature, SKEW_SECONDS_MAX } from '@chronovirt/messaging/node-signature';
import type { FastifyRequest } from 'fastify';
import type { Gateway } from '../gateway.ts';
import type { NodeSummary } from '../nodes/node-summary.projection.ts';
import { ProblemError } from '../problem.http.ts';
import type { ByteStore } from './byte-store.os.ts';

/** The node that signed a request (libs/messaging/src/node-signature.ts). Throws a ProblemError. */
export const nodeOf = async (gateway: Gateway, request: FastifyRequest): Promise<NodeId> => (await signerOf(gateway, request)).nodeId;

export const signerOf = async (gateway: Gateway, request: FastifyRequest): Promise<{ readonly nodeId: NodeId; readonly credentialKey: string }> => {
  const signed = readSignature(request.headers.authorization, { method: request.method, path: request.url });
  if (signed === undefined) throw new ProblemError('auth.token_missing', { detail: 'This is for nodes, which sign what they ask.' });
  const skew = Math.round(gateway.now().getTime() / 1_000) - signed.seconds;
  if (Math.abs(skew) > SKEW_SECONDS_MAX) throw new ProblemError('auth.signature_expired', { because: { skewSeconds: skew, max: SKEW_SECONDS_MAX } });
  const node = await gateway.views.document<NodeSummary>('node_summary', signed.nodeId);
  if (node === undefined || node.removed !== null || !signed.by(node.credentialKey)) throw new ProblemError('auth.signature_unknown', { because: { nodeId: signed.nodeId } });
  return { nodeId: signed.nodeId, credentialKey: node.credentialKey };
};

/** Throws a ProblemError where this gateway keeps no images. */
export const bytesOf = ({ bytes }: Gateway): ByteStore => {
  if (bytes === undefined) throw new ProblemError('image.no_store', { detail: 'This gateway keeps no images: set CV_GATEWAY_IMAGE_DIR to a folder that all gateways share.' });
  return bytes;
};
