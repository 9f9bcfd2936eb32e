/*
 * A place for disks, who sees it, and what of it is promised.
 *
 *     RegisterPool ─────────────────▶ active          the one a node began with: it stays
 *     RequestPool ─▶ creating ─▶ active ⇄ stopped ─▶ deleted
 *                        └─▶ failed ─────────────────▲
 *
 * What is wanted (active, stopped) and what nodes see (there or not, how large, how full) are kept apart. Disks
 * are thin, so more may be promised than there is; how full the folder really is, nodes report, and beyond a
 * threshold nothing new is put there, whatever was promised.
 */
import { BucketMap } from '@chronovirt/decider/bucket-map';
import { type Decider, refuse, type Refusal } from '@chronovirt/decider/decider';
import type { NodeId, OperationId, PoolId } from '@chronovirt/contracts/ids';
import type { PoolCommand } from '@chronovirt/contracts/pool/pool.commands';
import type { PoolEvent, PoolFigures, PoolType, PoolWork } from '@chronovirt/contracts/pool/pool.events';

/** Sizes in GiB. */
export interface LivePool {
  readonly status: 'creating' | 'active' | 'stopped' | 'failed';
  readonly poolId: PoolId;
  /** null: the one that a node began with. */
  readonly made: { readonly type: PoolType; readonly path: string; readonly token: string; readonly name: string } | null;
  readonly nodes: readonly NodeId[];
  readonly capacityGib: number;
  readonly overcommitPercent: number;
  readonly fullPercent: number;
  readonly nearlyFull: boolean;
  readonly seen: Readonly<Record<NodeId, PoolFigures & { readonly active: boolean }>>;
  readonly operation: { readonly id: OperationId; readonly work: PoolWork } | null;
  readonly reservedGib: number;
  readonly reserved: BucketMap<string, number>;
}

export type Pool = { readonly status: 'absent' } | { readonly status: 'deleted'; readonly name: string } | LivePool;

const OVERCOMMIT_PERCENT_DEFAULT = 200;
const FULL_PERCENT_DEFAULT = 95;
/** So much fuller or emptier is news, and so far below the threshold it is over. Percent. */
const STEP_PERCENT = 5;

export const isLive = (state: Pool): state is LivePool => state.status !== 'absent' && state.status !== 'deleted';

/** The nodes that see it. */
export const nodesOf = (state: Pool): readonly NodeId[] => (isLive(state) ? state.nodes : []);

/** Why so much more cannot be promised. */
const lackOf = ({ poolId, status, nearlyFull, fullPercent, capacityGib, overcommitPercent, reservedGib, seen }: LivePool, sizeGib: number): Refusal | undefined => {
  if (sizeGib <= 0) return undefined;
  if (status !== 'active') return refuse('pool.stopped', { poolId, status });
  if (nearlyFull) return refuse('pool.nearly_full', { poolId, usedPercent: fullest(seen), fullPercent });
  const freeGib = Math.floor((capacityGib * overcommitPercent) / 100) - reservedGib;
  return sizeGib > freeGib ? refuse('pool.no_space', { poolId, sizeGib, freeGib }) : undefined;
};

const percentOf = ({ capacityGib, usedGib }: PoolFigures): number => (capacityGib === 0 ? 0 : Math.floor((usedGib * 100) / capacityGib));
const fullest = (seen: LivePool['seen']): number => Math.max(0, ...Object.values(seen).map(percentOf));

/** Whether it became nearly full by this, or is no longer. */
const alarms = (before: boolean, seen: LivePool['seen'], fullPercent: number): readonly PoolEvent[] => {
  const usedPercent = fullest(seen);
  if (!before && usedPercent >= fullPercent) return [{ type: 'PoolNearlyFull', data: { usedPercent, fullPercent } }];
  return before && usedPercent < Math.max(1, fullPercent - STEP_PERCENT) ? [{ type: 'PoolRelieved', data: { usedPercent, fullPercent } }] : [];
};

const record = (state: LivePool, { nodeId, active, capacityGib, usedGib }: Extract<PoolCommand, { type: 'RecordPool' }>['data']): readonly PoolEvent[] => {
  const now = { active, capacityGib, usedGib };
  const before = state.seen[nodeId];
  const sees = { ...state.seen, [nodeId]: now };
  const rung = alarms(state.nearlyFull, sees, state.fullPercent);
  const news = before === undefined || before.active !== active || before.capacityGib !== capacityGib || Math.abs(percentOf(now) - percentOf(before)) >= STEP_PERCENT || rung.length > 0;
  return news ? [{ type: 'PoolObserved', data: { nodeId, ...now } }, ...rung] : [];
};

const work = (state: Pool, { poolId, operationId, work: what }: Extract<PoolCommand, { type: 'WorkOnPool' }>['data']): readonly PoolEvent[] | Refusal => {
  if (!isLive(state)) return refuse('pool.not_found', { poolId });
  const { operation, status, made, nodes, reserved } = state;
  if (operation?.id === operationId) return [];
  if (operation !== null) return refuse('pool.busy', { poolId, operationId: operation.id, work: operation.work });
  if (made === null && what !== 'refresh') return refuse('pool.of_node', { poolId, nodeId: nodes[0] ?? null });
  if (status === 'failed' && what !== 'delete') return refuse('pool.failed', { poolId });
  if (what === 'refresh' && status !== 'active') return refuse('pool.stopped', { poolId, status });
  if (what === 'delete' && reserved.size > 0) return refuse('pool.in_use', { poolId, count: reserved.size });
  const asked: PoolEvent = { type: 'PoolWorkRequested', data: { operationId, poolId, work: what, type: made?.type ?? null, path: made?.path ?? null, nodes: [...nodes], token: made?.token ?? '' } };
  return [asked];
};

const finish = (state: LivePool, { operationId, seen }: Extract<PoolCommand, { type: 'FinishPool' }>['data'], missing: readonly string[]): readonly PoolEvent[] => {
  if (state.operation?.id !== operationId) return [];
  const [first] = state.nodes;
  const looked = seen === null || first === undefined ? [] : record(state, { poolId: state.poolId, nodeId: first, active: true, capacityGib: seen.capacityGib, usedGib: seen.usedGib });
  switch (state.operation.work) {
    case 'create':
    case 'start':
      return [{ type: 'PoolOpened', data: { operationId, capacityGib: seen?.capacityGib ?? state.capacityGib } }, ...looked];
    case 'stop':
      return [{ type: 'PoolStopped', data: { operationId } }];
    case 'delete':
      return [{ type: 'PoolDeleted', data: { operationId } }];
    case 'refresh': {
      const { files = [], volumesGib = 0, capacityGib = state.capacityGib, usedGib = 0 } = seen ?? {};
      const unknown = files.filter((name) => !state.reserved.has(/^(volume_[0-9a-f]{32})\./.exec(name)?.[1] ?? ''));
      return [{ type: 'PoolRefreshed', data: { operationId, capacityGib, usedGib, volumesGib, unknown: firstOf(unknown), missing: firstOf(missing) } }, ...looked];
    }
  }
};

const firstOf = (names: readonly string[]) => ({ count: names.length, first: names.slice(0, 20) });

/** With `FinishPool` comes which of its volumes should have had files and have none: that is the volumes' to say. */
export type OfPool = Exclude<PoolCommand, { type: 'FinishPool' }> | { readonly type: 'FinishPool'; readonly data: Extract<PoolCommand, { type: 'FinishPool' }>['data'] & { readonly missing: readonly string[] } };

export const pool: Decider<OfPool, PoolEvent, Pool> = {
  category: 'pool',
  initial: { status: 'absent' },
  decide(command, state) {
    const { poolId } = command.data;
    switch (command.type) {
      case 'RegisterPool': {
        const { nodeId, name, capacityGib } = command.data;
        if (state.status === 'absent') return [{ type: 'PoolRegistered', data: { poolId, nodeId, name, capacityGib, overcommitPercent: OVERCOMMIT_PERCENT_DEFAULT } }];
        if (!isLive(state) || state.nodes[0] !== nodeId) return refuse('pool.of_another_node', { poolId });
        return state.capacityGib === capacityGib ? [] : [{ type: 'PoolResized', data: { nodeId, capacityGib } }];
      }
      case 'RecordPool':
        return isLive(state) && state.nodes.includes(command.data.nodeId) ? record(state, command.data) : [];
      case 'RequestPool': {
        if (isLive(state)) return state.operation?.id === command.data.operationId ? [] : refuse('pool.exists', { poolId });
        if (state.status === 'deleted') return refuse('pool.deleted', { poolId });
        const { operationId, type, path, nodes } = command.data;
        return [{ type: 'PoolRequested', data: command.data }, { type: 'PoolWorkRequested', data: { operationId, poolId, work: 'create', type, path, nodes, token: operationId } }];
      }
      case 'ChangePool': {
        if (!isLive(state)) return refuse('pool.not_found', { poolId });
        const { overcommitPercent = state.overcommitPercent, fullPercent = state.fullPercent } = command.data;
        if (overcommitPercent === state.overcommitPercent && fullPercent === state.fullPercent) return [];
        return [{ type: 'PoolPolicyChanged', data: { overcommitPercent, fullPercent } }, ...alarms(state.nearlyFull, state.seen, fullPercent)];
      }
      case 'WorkOnPool':
        return work(state, command.data);
      case 'FinishPool':
        return isLive(state) ? finish(state, command.data, command.data.missing) : [];
      case 'FailPool': {
        const { operationId, refused, because, owed } = command.data;
        return isLive(state) && state.operation?.id === operationId ? [{ type: 'PoolWorkFailed', data: { operationId, work: state.operation.work, refused, because, owed } }] : [];
      }
      case 'ReserveSpace': {
        const { volumeId, vmId, sizeGib } = command.data;
        if (!isLive(state)) return refuse('pool.not_found', { poolId });
        if (state.reserved.has(volumeId)) return [];
        // A pool that is about to go has no room for anybody.
        if (state.operation?.work === 'delete' || state.operation?.work === 'stop') return refuse('pool.busy', { poolId, operationId: state.operation.id, work: state.operation.work });
        return lackOf(state, sizeGib) ?? [{ type: 'SpaceReserved', data: { nodeId: homeOf(state), volumeId, vmId, sizeGib } }];
      }
      case 'ResizeSpace': {
        const { volumeId, vmId, sizeGib } = command.data;
        const heldGib = isLive(state) ? state.reserved.get(volumeId) : undefined;
        if (!isLive(state) || heldGib === undefined) return refuse('volume.not_found', { volumeId, poolId });
        if (heldGib === sizeGib) return [];
        return lackOf(state, sizeGib - heldGib) ?? [{ type: 'SpaceResized', data: { nodeId: homeOf(state), volumeId, vmId, sizeGib, beforeGib: heldGib } }];
      }
      case 'ReleaseSpace': {
        const { volumeId, vmId } = command.data;
        const sizeGib = isLive(state) ? state.reserved.get(volumeId) : undefined;
        return !isLive(state) || sizeGib === undefined ? [] : [{ type: 'SpaceReleased', data: { nodeId: homeOf(state), volumeId, vmId, sizeGib } }];
      }
    }
  },
  evolve(state, event) {
    const nothing = { nearlyFull: false, seen: {}, operation: null, reservedGib: 0, reserved: BucketMap.empty<string, number>() };
    if (event.type === 'PoolRegistered') {
      const { poolId, nodeId, capacityGib, overcommitPercent } = event.data;
      return { ...nothing, status: 'active', poolId, made: null, nodes: [nodeId], capacityGib, overcommitPercent, fullPercent: FULL_PERCENT_DEFAULT };
    }
    if (event.type === 'PoolRequested') {
      const { poolId, name, type, path, nodes, overcommitPercent, fullPercent, operationId } = event.data;
      return { ...nothing, status: 'creating', poolId, made: { type, path, name, token: operationId }, nodes, capacityGib: 0, overcommitPercent, fullPercent };
    }
    if (!isLive(state)) return state;
    switch (event.type) {
      case 'PoolWorkRequested':
        return { ...state, operation: { id: event.data.operationId, work: event.data.work } };
      case 'PoolOpened':
        return { ...state, status: 'active', capacityGib: event.data.capacityGib, operation: null };
      case 'PoolStopped':
        return { ...state, status: 'stopped', operation: null };
      case 'PoolDeleted':
        return { status: 'deleted', name: state.made?.name ?? '' };
      case 'PoolRefreshed':
        return { ...state, capacityGib: event.data.capacityGib, operation: null };
      case 'PoolWorkFailed':
        return { ...state, status: state.status === 'creating' ? 'failed' : state.status, operation: null };
      case 'PoolPolicyChanged':
        return { ...state, ...event.data };
      case 'PoolObserved': {
        const { nodeId, ...seen } = event.data;
        return { ...state, capacityGib: state.made !== null && seen.active ? seen.capacityGib : state.capacityGib, seen: { ...state.seen, [nodeId]: seen } };
      }
      case 'PoolNearlyFull':
        return { ...state, nearlyFull: true };
      case 'PoolRelieved':
        return { ...state, nearlyFull: false };
      case 'PoolResized':
        return { ...state, capacityGib: event.data.capacityGib };
      case 'SpaceReserved':
        return { ...state, reservedGib: state.reservedGib + event.data.sizeGib, reserved: state.reserved.with(event.data.volumeId, event.data.sizeGib) };
      case 'SpaceResized':
        return { ...state, reservedGib: state.reservedGib + event.data.sizeGib - event.data.beforeGib, reserved: state.reserved.with(event.data.volumeId, event.data.sizeGib) };
      case 'SpaceReleased':
        return { ...state, reservedGib: state.reservedGib - event.data.sizeGib, reserved: state.reserved.without(event.data.volumeId) };
    }
  },
};

const homeOf = ({ nodes, poolId }: LivePool): NodeId => {
  const [home] = nodes;
  if (home === undefined) throw new Error(`${poolId} is seen by nobody`);
  return home;
};
