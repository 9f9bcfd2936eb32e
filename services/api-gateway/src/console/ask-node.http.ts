/* What a node is asked for and sends in one piece, by a line: a picture, an XML, figures. */
import type { LinePurpose } from '@chronovirt/contracts/console/console.commands';
import type { NodeId } from '@chronovirt/contracts/ids';
import { LineCut, type Line } from '@chronovirt/messaging/line';
import { ProblemError } from '../problem.http.ts';

const BYTES_MAX = 64 * 2 ** 20;
/** At once, for a gateway: each is held in memory. */
const ASKED_MAX = 16;

export type AskNode = (nodeId: NodeId, purpose: LinePurpose) => Promise<Buffer>;

/** Rejects with a ProblemError when the node refuses or cannot be reached. */
export const askingNodes = (openLine: (nodeId: NodeId, purpose: LinePurpose) => Promise<Line>): AskNode => {
  let asked = 0;
  return async (nodeId, purpose) => {
    if (asked >= ASKED_MAX) throw new ProblemError('gateway.overloaded', { headers: { 'retry-after': '1' } });
    asked++;
    try {
      const line = await openLine(nodeId, purpose);
      const pieces: Buffer[] = [];
      let bytes = 0;
      for await (const piece of line as AsyncIterable<Buffer>) {
        bytes += piece.length;
        if (bytes > BYTES_MAX) throw new Error(`what node ${nodeId} sends (${purpose.kind}) has no end`);
        pieces.push(piece);
      }
      return Buffer.concat(pieces);
    } catch (fault) {
      throw fault instanceof LineCut ? new ProblemError(fault.code, fault.because === undefined ? {} : { because: fault.because }) : fault;
    } finally {
      asked--;
    }
  };
};
