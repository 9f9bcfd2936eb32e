/*
 * How a node proves itself to the gateway over HTTP, where bytes pass that are too many for the bus.
 *
 *     Authorization: CvNode <node id>.<seconds since 1970>.<signature>
 *
 * The signature is made with the nkey that proves the node to the bus, whose public half was recorded when it
 * joined; so there is no other secret, and none in a command or an event. It covers the method, the path with
 * its query, the node and the time. Whatever matters of such a request therefore stands in its path, and what
 * is done twice is done once. The bytes themselves are not signed: what they must be is told by their SHA-256,
 * and whoever takes them compares it.
 */
import { fromPublic, fromSeed } from '@nats-io/nkeys';

export const SCHEME = 'CvNode';
/** How far the clocks of a node and the gateway may be apart, and how long a request can be repeated by whoever overheard it. Seconds. */
export const SKEW_SECONDS_MAX = 300;

export interface NodeRequest {
  readonly method: string;
  /** From /v1/ on, with its query: whatever stands before is a proxy's business. */
  readonly path: string;
  readonly nodeId: string;
}

const FORM = /^CvNode (node_[0-9a-f]{32})\.(\d{1,12})\.([A-Za-z0-9_-]{86})$/;

const bytesOf = ({ method, path, nodeId }: NodeRequest, seconds: number): Uint8Array => new TextEncoder().encode(`chronovirt-node-1\n${method}\n${path}\n${nodeId}\n${String(seconds)}\n`);

/** The header's value. `seed` is the node's nkey; `seconds` its clock. */
export const signRequest = (request: NodeRequest, seed: string, seconds: number): string => {
  const key = fromSeed(new TextEncoder().encode(seed));
  try {
    return `${SCHEME} ${request.nodeId}.${String(seconds)}.${Buffer.from(key.sign(bytesOf(request, seconds))).toString('base64url')}`;
  } finally {
    key.clear();
  }
};

export interface SignedBy {
  readonly nodeId: `node_${string}`;
  readonly seconds: number;
  /** Whether it was signed by the holder of this nkey's private half. */
  by(publicKey: string): boolean;
}

/** What a header claims; undefined when it is none of ours. */
export const readSignature = (authorization: string | undefined, request: Omit<NodeRequest, 'nodeId'>): SignedBy | undefined => {
  const [, nodeId, seconds, signature] = FORM.exec(authorization ?? '') ?? [];
  if (nodeId === undefined || seconds === undefined || signature === undefined) return undefined;
  return {
    nodeId: nodeId as SignedBy['nodeId'], // the form says so
    seconds: Number(seconds),
    by: (publicKey) => {
      const key = fromPublic(publicKey);
      return key.verify(bytesOf({ ...request, nodeId }, Number(seconds)), Buffer.from(signature, 'base64url'));
    },
  };
};
