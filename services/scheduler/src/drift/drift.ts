/*
 * What differs on one node, as an append-only story: seen, perhaps different, settled. A node always names
 * everything that differs now, so what it names no more is settled; and what it names again unchanged is no
 * news.
 *
 *     RecordDrift ─▶ DriftSeen ⟲ ─▶ DriftSettled
 *     ActOnDrift  ─▶ DriftActed, until it becomes different; where a node has to do it ─▶ DriftActionEnded
 */
import { type Decider, refuse, type Refusal } from '@chronovirt/decider/decider';
import type { DriftCommand } from '@chronovirt/contracts/drift/drift.commands';
import type { Difference, DriftAction, DriftClass, DriftEvent, DriftItem } from '@chronovirt/contracts/drift/drift.events';
import type { VmCommand } from '@chronovirt/contracts/vm/vm.commands';
import type { OperationId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { SettleDrift } from './settle-drift.saga.ts';

export interface OpenDrift extends DriftItem {
  /** `by` whom, and the operation; `ended` where a node had to do something and has answered. */
  readonly acted: { readonly action: DriftAction; readonly by: 'operator' | 'policy'; readonly operationId: OperationId; readonly ended: boolean } | null;
}

export interface NodeDrift {
  readonly session: number;
  readonly sequence: number;
  readonly items: Readonly<Record<string, OpenDrift>>;
}

/** Without what only says how it came to be known. */
const contentOf = ({ class: klass, subject, vmId, name, differences, foreign, says }: DriftItem): string =>
  JSON.stringify([klass, subject, vmId, name, differences.map(({ field, where, expected, seen }) => [field, where ?? null, expected, seen]), foreign === null ? null : Object.entries(foreign).sort(([a], [b]) => (a < b ? -1 : 1)), says]);

type OfNode = Extract<DriftCommand, { type: 'RecordDrift' | 'ActOnDrift' | 'EndDriftAction' }>;

export const drift: Decider<OfNode, Exclude<DriftEvent, { type: 'DriftPolicySet' }>, NodeDrift> = {
  category: 'drift',
  initial: { session: 0, sequence: 0, items: {} },
  // What a node sees comes at any time.
  observations: ['DriftSeen', 'DriftSettled'],
  decide(command, state) {
    switch (command.type) {
      case 'RecordDrift': {
        const { nodeId, session, sequence, items } = command.data;
        if (session < state.session || (session === state.session && sequence < state.sequence)) return [];
        const seen = new Set(items.map(({ driftId }) => driftId as string));
        return [
          ...items.flatMap((item) => {
            const known = state.items[item.driftId];
            return known !== undefined && contentOf(known) === contentOf(item) ? [] : [{ type: 'DriftSeen', data: { ...item, session, sequence } } as const];
          }),
          ...Object.values(state.items).filter(({ driftId }) => !seen.has(driftId)).map(({ driftId, class: klass, subject, vmId }) => ({ type: 'DriftSettled', data: { driftId, nodeId, class: klass, subject, vmId, session, sequence } }) as const),
        ];
      }
      case 'ActOnDrift': {
        const { nodeId, driftId, operationId, action, by } = command.data;
        const item = state.items[driftId];
        if (item === undefined) return refuse('drift.not_found', { driftId });
        if (item.acted?.operationId === operationId) return [];
        return item.acted?.action === action && action === 'ignore' ? [] : [{ type: 'DriftActed', data: { driftId, nodeId, action, by, operationId, vmId: item.vmId } }];
      }
      case 'EndDriftAction': {
        const { driftId, operationId } = command.data;
        // It may be settled, or different, by now: how it ended is told all the same, once.
        return state.items[driftId]?.acted?.operationId === operationId && state.items[driftId].acted.ended ? [] : [{ type: 'DriftActionEnded', data: command.data }];
      }
    }
  },
  evolve(state, event) {
    switch (event.type) {
      case 'DriftActionEnded': {
        const item = state.items[event.data.driftId];
        return item?.acted?.operationId !== event.data.operationId ? state : { ...state, items: { ...state.items, [item.driftId]: { ...item, acted: { ...item.acted, ended: true } } } };
      }
      case 'DriftSeen': {
        const { session, sequence, ...item } = event.data;
        return { session, sequence, items: { ...state.items, [item.driftId]: { ...item, acted: null } } };
      }
      case 'DriftSettled': {
        const { session, sequence, driftId } = event.data;
        const { [driftId]: _, ...items } = state.items;
        return { session, sequence, items };
      }
      case 'DriftActed': {
        const item = state.items[event.data.driftId];
        return item === undefined ? state : { ...state, items: { ...state.items, [item.driftId]: { ...item, acted: { action: event.data.action, by: event.data.by, operationId: event.data.operationId, ended: false } } } };
      }
    }
  },
};

export type DriftPolicies = Readonly<Partial<Record<DriftClass, DriftAction>>>;

/** One stream for the whole installation. */
export const POLICIES = 'all';

export const driftPolicies: Decider<Extract<DriftCommand, { type: 'SetDriftPolicy' }>, Extract<DriftEvent, { type: 'DriftPolicySet' }>, DriftPolicies> = {
  category: 'drift-policy',
  initial: {},
  decide: ({ data }, state) => {
    if ((state[data.class] ?? 'alert') === data.action) return [];
    const possible = POSSIBLE[data.class];
    return possible.includes(data.action) ? [{ type: 'DriftPolicySet', data }] : refuse('drift.no_such_policy', { class: data.class, action: data.action, possible });
  },
  evolve: (state, { data }) => ({ ...state, [data.class]: data.action }),
};

const SHOWN: readonly DriftAction[] = ['alert', 'ignore'];
/** What can be done about a class without asking anybody. A foreign domain gets a name and an owner: somebody has to want it. */
const POSSIBLE: Readonly<Record<DriftClass, readonly DriftAction[]>> = {
  changed: [...SHOWN, 'revert', 'adopt'], missing: [...SHOWN, 'revert'], network: [...SHOWN, 'revert'],
  'disk-replaced': [...SHOWN, 'adopt'], moved: SHOWN, duplicate: SHOWN, foreign: SHOWN, 'orphan-disk': SHOWN, 'disk-missing': SHOWN,
  // Which VMs are started again, each of them says itself.
  'node-restarted': SHOWN,
};

/** What does what is wanted about an item, a VM's command or a node's; or why nothing can be done. */
export function remedyOf(item: DriftItem, action: 'adopt' | 'revert', operationId: OperationId, networkOf: (id: string) => NetworkPlan | undefined = () => undefined): { readonly vm: VmCommand } | { readonly node: SettleDrift['does'] } | Refusal {
  const { vmId, class: klass } = item;
  const no = (hint: string): Refusal => refuse(action === 'adopt' ? 'drift.cannot_adopt' : 'drift.cannot_revert', { driftId: item.driftId, class: klass, hint });
  switch (klass) {
    case 'changed':
      if (vmId === null) return no('it is no VM');
      if (action === 'revert') return { vm: { type: 'RestoreVm', data: { vmId, operationId } } };
      return ofVm(adoption(item, vmId, operationId, no));
    case 'missing':
      if (vmId === null) return no('it is no VM');
      return action === 'revert' ? { vm: { type: 'RestoreVm', data: { vmId, operationId } } } : no('delete the VM, if its domain shall be gone');
    case 'moved': return no('its disks are not where this node keeps them: bring the domain back by hand, or stop and undefine it there, and revert');
    case 'duplicate': return no('only you know which of the two is right: stop the other one, and undefine it by hand');
    case 'foreign': return no(action === 'adopt' ? 'give it a name: POST /v1/nodes/{id}/foreign/{uuid}/adopt' : 'it is not ours to remove');
    case 'orphan-disk': return no(action === 'adopt' ? 'give it a name: POST /v1/volumes with "from": {"drift": …}, if it is a disk' : 'nobody knows what it holds: move the file out of the folder, or remove it, by hand');
    case 'disk-missing': return no('its bytes are gone: put the file back, restore a backup, or delete what it belonged to');
    case 'disk-replaced':
      // Its subject is the volume, and the layer where that is meant.
      if (action === 'adopt') return { node: { kind: 'volume', volumeId: item.subject.slice(0, 'volume_'.length + 32) as VolumeId } };
      return no('the file that was there is gone: put it back by hand, restore a backup, or rebuild');
    case 'node-restarted': return no('start its VMs, stop those that shall stay down, or mark them to be started again with their node (autostart)');
    case 'network': {
      const network = networkOf(item.subject);
      if (network === undefined) return no('there is no such network any more');
      return action === 'revert' ? { node: { kind: 'network', network } } : no('a network is the same on every node: make another one');
    }
  }
}

const ofVm = (command: VmCommand | Refusal): { readonly vm: VmCommand } | Refusal => ('refused' in command ? command : { vm: command });

/** What was changed by hand becomes what is wanted, where that can be said of a VM. */
function adoption({ differences }: DriftItem, vmId: VmId, operationId: OperationId, no: (hint: string) => Refusal): VmCommand | Refusal {
  const state = differences.find(({ field }) => field === 'state');
  if (state !== undefined && differences.length === 1) {
    if (state.seen === 'stopped' || state.seen === 'crashed') return { type: 'StopVm', data: { vmId, operationId, timeoutSeconds: 0, force: true } };
    if (state.seen === 'running') return { type: 'StartVm', data: { vmId, operationId } };
    return { type: 'PauseVm', data: { vmId, operationId } };
  }
  const number = (field: string): number | undefined => {
    const one: Difference | undefined = differences.find((difference) => difference.field === field && difference.where !== 'running') ?? differences.find((difference) => difference.field === field);
    return typeof one?.seen === 'number' ? one.seen : undefined;
  };
  const [vcpus, memoryMib] = [number('vcpus'), number('memoryMib')];
  const other = differences.filter(({ field }) => !['vcpus', 'vcpusMax', 'memoryMib'].includes(field)).map(({ field }) => field);
  if (other.length > 0 || (vcpus === undefined && memoryMib === undefined)) return no(`nothing of a VM says so: ${(other.length > 0 ? other : ['vcpusMax']).slice(0, 10).join(', ')}`);
  return { type: 'RequestReconfiguration', data: { vmId, operationId, change: { ...(vcpus === undefined ? {} : { vcpus }), ...(memoryMib === undefined ? {} : { memoryMib }) } } };
}
