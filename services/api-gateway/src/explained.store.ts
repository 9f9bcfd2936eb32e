/*
 * What a refusal's receiver did not know, and its reader wants to: the names of the VMs that are in the way, how
 * far the operation is that has a VM in hand and by when it ends, and which fields became different since he looked. The fields are those of the documents that he reads: the
 * same folds, up to the version that he has seen and up to the one that is.
 */
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import type { Refusal } from '@chronovirt/decider/decider';
import { SINCE_MAX, type RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';
import { bootJobView } from './boot-jobs/boot-job.projection.ts';
import { type Change, changedBetween } from './changed.ts';
import type { Gateway } from './gateway.ts';
import { imageView } from './images/image.projection.ts';
import type { OperationDocument } from './operations/operation.projection.ts';
import { subnetView } from './networks/network.projection.ts';
import { nodeSummary } from './nodes/node-summary.projection.ts';
import { sshKeyView } from './ssh-keys/ssh-key.projection.ts';
import { apiTokenView } from './tokens/token.projection.ts';
import { vmSummary } from './vms/vm-summary.projection.ts';

type Parts = Pick<Gateway, 'events' | 'views'>;

/** By the category of the stream. */
const documentOf: Readonly<Record<string, Projection<unknown>>> = {
  vm: vmSummary, node: nodeSummary, subnet: subnetView, image: imageView, token: apiTokenView, 'ssh-key': sshKeyView, 'boot-job': bootJobView,
};
/** What no reader of the document is shown. */
const hidden = ['sha256', 'credentialKey', 'credentialKeys', 'sealKey'];
/** Events of a stream that are folded to tell what changed. A longer one is only told by its last events. */
const FOLDED_MAX = 10_000;

export const explained = async (parts: Parts, refusal: Refusal, stream: string): Promise<Refusal> => {
  const { refused, because = {} } = refusal;
  const { expected, version, vms } = because;
  if (refused === 'precondition.failed' && typeof expected === 'number' && typeof version === 'number') {
    const changed = await changedSince(parts, stream, expected, version);
    return changed === undefined ? refusal : { refused, because: { ...because, changed } };
  }
  if (refused === 'vm.busy' && typeof because['operationId'] === 'string') {
    const operation = await parts.views.document<OperationDocument>('operation', because['operationId']);
    return operation === undefined ? refusal : { refused, because: { ...because, kind: operation.kind, percent: operation.percent, waitsFor: operation.waitsFor, endsBy: operation.deadlineAt } };
  }
  if (Array.isArray(vms) && vms.every((id) => typeof id === 'string')) {
    const names = await parts.views.vmNames(vms);
    return { refused, because: { ...because, vms: vms.map((id) => ({ id, name: names.get(id) ?? null })) } };
  }
  return refusal;
};

/** A network is guarded by its subnet's version (networks/networks.http.ts). */
const changedSince = async ({ events, views }: Parts, stream: string, expected: number, version: number): Promise<Readonly<Record<string, Change>> | undefined> => {
  const guarded = categoryOf(stream) === 'network' ? await views.subnetStreamOf(idOfStream(stream)) : stream;
  const projection = guarded === undefined ? undefined : documentOf[categoryOf(guarded)];
  if (guarded === undefined || projection === undefined || version > FOLDED_MAX || expected > version) return undefined;
  let document: unknown;
  let before: unknown;
  let seen = 0;
  while (seen < version) {
    const page: readonly RecordedEvent[] = (await events.since(guarded, seen)).filter((event) => event.version <= version);
    for (const event of page) {
      for (const key of projection.keys(event)) document = projection.fold(document, event, key);
      if (event.version === expected) before = document;
    }
    seen = page.at(-1)?.version ?? version;
    if (page.length < SINCE_MAX) break;
  }
  return Object.fromEntries(Object.entries(changedBetween(before, document)).filter(([path]) => !hidden.includes(path)));
};
