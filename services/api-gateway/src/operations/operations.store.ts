/*
 * Operations as they are shown: the projection's document, and what only the stored answers and the node's
 * presence know.
 *
 * A command that was accepted and then refused by its receiver leaves no event, so its operation would stay
 * pending for ever; a batch ends when its members have. Both are worked out when they are read.
 */
import { PoolWork } from '@chronovirt/contracts/pool/pool.events';
import { VolumeWork } from '@chronovirt/contracts/volume/volume.events';
import { isRefusal } from '@chronovirt/decider/decider';
import { inWords } from '../problem.ts';
import type { OperationFilters, Views } from '../views.store.ts';
import type { OperationDocument, OperationStatus } from './operation.projection.ts';
import { aggregated } from './batch.ts';

const SCANNED_AT_ONCE = 200;
/** Kinds, of what is no VM, that are not done when their command was obeyed. */
const byOthers: ReadonlySet<string> = new Set(['create-volume', ...VolumeWork.options.map(({ shape: { kind } }) => `${kind.value}-volume`), 'delete-volume', ...PoolWork.options.map((work) => `${work}-pool`), 'delete-backup']);

export class Operations {
  private readonly views: Views;

  constructor(views: Views) {
    this.views = views;
  }

  async one(id: string): Promise<OperationDocument | undefined> {
    const found = await this.views.document<OperationDocument>('operation', id);
    return found === undefined ? undefined : (await this.shown([found]))[0];
  }

  /**
   * Newest first, one more than `limit` when there are more. A status is the one that is shown: what is stored
   * as pending may have ended since, so those are worked out before they are counted.
   */
  async page({ before, limit, filters, status }: { readonly before: readonly [string, string] | undefined; readonly limit: number; readonly filters: OperationFilters; readonly status: OperationStatus | undefined }): Promise<readonly OperationDocument[]> {
    if (status === undefined) return this.shown(await this.views.operations<OperationDocument>({ before, limit, filters }));
    const statuses = [...new Set([status, 'pending'])];
    const atOnce = Math.max(limit, SCANNED_AT_ONCE);
    const found: OperationDocument[] = [];
    for (let from = before; ;) {
      const stored = await this.views.operations<OperationDocument>({ before: from, limit: atOnce, filters, statuses });
      const last = stored.length > atOnce ? stored[atOnce - 1] : undefined;
      found.push(...(await this.shown(stored.slice(0, atOnce))).filter((operation) => operation.status === status));
      if (last === undefined || found.length > limit) return found.slice(0, limit + 1);
      from = [last.requestedAt, last.id];
    }
  }

  private async shown(documents: readonly OperationDocument[]): Promise<readonly OperationDocument[]> {
    const memberIds = documents.flatMap(({ members }) => members?.map(({ operationId }) => operationId) ?? []);
    const members = await this.answered(await this.views.documents<OperationDocument>('operation', memberIds));
    const byId = new Map(members.map((member) => [member.id, member]));
    const own = await this.answered(documents);
    const silentNodes = await this.views.silentNodes(own.flatMap(({ endedAt, vmId }) => (endedAt === null && vmId !== null ? [vmId] : [])));
    return own.map((operation) => {
      if (operation.members !== null) return aggregated(operation, operation.members.map(({ operationId }) => byId.get(operationId)));
      const silent = operation.endedAt === null && operation.vmId !== null ? silentNodes.get(operation.vmId) : undefined;
      return silent === undefined ? operation : { ...operation, waitsFor: `${operation.waitsFor ?? 'its end'}; node ${silent.name} is silent since ${silent.silentSince}` };
    });
  }

  /** Pending ones whose command was answered: refused is the end of it; obeyed, for what is neither about a VM nor carried out by a saga, is success. */
  private async answered(operations: readonly OperationDocument[]): Promise<readonly OperationDocument[]> {
    const pending = operations.filter(({ status, members }) => status === 'pending' && members === null);
    if (pending.length === 0) return operations;
    const answers = await this.views.answers(pending.map(({ commandId }) => commandId));
    return operations.map((operation): OperationDocument => {
      const found = operation.status === 'pending' && operation.members === null ? answers.get(operation.commandId) : undefined;
      if (found === undefined) return operation;
      if (isRefusal(found.answer)) {
        const { refused, because } = found.answer;
        return { ...operation, status: 'failed', waitsFor: null, endedAt: found.at, error: { code: refused, message: inWords(refused, because), because: because ?? {} } };
      }
      return operation.vmId === null && !byOthers.has(operation.kind) ? { ...operation, status: 'succeeded', percent: 100, waitsFor: null, endedAt: found.at } : operation;
    });
  }
}
