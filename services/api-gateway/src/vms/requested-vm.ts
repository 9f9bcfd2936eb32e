/*
 * A VM and its operation as they are shown before any projection knows them: made of the request alone, so
 * that the same request always gets the same answer, word for word.
 */
import type { CreateVmBody } from '@chronovirt/contracts/vm/vm.commands';
import { platformOf } from '@chronovirt/contracts/vm/vm.events';
import type { OperationDocument } from '../operations/operation.projection.ts';
import type { VmSummary } from './vm-summary.projection.ts';

type Shown<T, K extends keyof T> = Omit<T, K> & { readonly [P in K]: T[P] | null };
export type RequestedVm = Omit<Shown<VmSummary, 'createdAt' | 'changedAt' | 'position' | 'version' | 'networkName'>, 'spec'> & {
  readonly spec: Omit<Shown<VmSummary['spec'], 'imageId' | 'networkId' | 'subnetId' | 'nodeId' | 'boot'>, never>;
};
export type PendingOperation = Shown<OperationDocument, 'requestedAt' | 'changedAt' | 'position' | 'traceparent'>;

const idOr = <K extends string>(kind: K, reference: string | undefined): `${K}_${string}` | null =>
  (reference !== undefined && new RegExp(`^${kind}_[0-9a-f]{32}$`).test(reference) ? (reference as `${K}_${string}`) : null);

export const requestedVm = (body: Omit<CreateVmBody, 'count' | 'sshKeys' | 'bootJobs'>, vmId: string, operationId: string): RequestedVm => ({
  id: vmId, name: body.name, description: body.description, status: 'requested', statusBecause: null, desired: 'running', observed: null,
  spec: {
    imageId: idOr('image', body.image), networkId: idOr('network', body.network), subnetId: null, vcpus: body.vcpus, memoryMib: body.memoryMib, diskGib: body.diskGib,
    vcpusMax: body.vcpusMax ?? body.vcpus, memoryMibMax: body.memoryMibMax ?? body.memoryMib, boot: body.boot ?? null, media: null, cloudInit: body.cloudInit ?? null, diskLimits: null,
    accel: body.accel, devices: body.devices, ...platformOf(body), nodeId: idOr('node', body.node), tags: body.tags, protected: body.protected,
  },
  networkName: idOr('network', body.network) === null ? body.network : null,
  nodeId: null, generation: 0, volumes: [], nics: [], snapshots: [], currentSnapshot: null, screenPassword: null, bootRuns: [], pending: [], address: null, mac: null, operationId, operation: { id: operationId, kind: 'create', desiredBefore: 'stopped' }, waitingDelete: null, expiry: null, failure: null,
  createdAt: null, changedAt: null, position: null, version: null,
});

export const pendingOperation = (about: {
  readonly id: string; readonly kind: string; readonly vmId: string | null; readonly commandId: string; readonly actor: string;
  readonly parent?: string; readonly members?: OperationDocument['members'];
}): PendingOperation => ({
  id: about.id, kind: about.kind, vmId: about.vmId, status: 'pending', percent: 0, steps: [], waitsFor: about.members === undefined || about.members === null ? 'its receiver' : 'its members',
  requestedAt: null, startedAt: null, deadlineAt: null, endedAt: null, how: null, error: null, owed: [], actor: about.actor, commandId: about.commandId, traceparent: null,
  parent: about.parent ?? null, members: about.members ?? null, changedAt: null, position: null,
});
