/* What storage does with commands about pools beyond asking their decider: names, and what the volumes in a pool are used for. */
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import { streamOf, type VolumeId } from '@chronovirt/contracts/ids';
import type { PoolCommand } from '@chronovirt/contracts/pool/pool.commands';
import { type Answer, isRefusal, refuse, type Refusal } from '@chronovirt/decider/decider';
import { reservation } from '@chronovirt/decider/reservation';
import type { CommandHandler, Handling } from '@chronovirt/event-log/handle';
import { volume } from '../volume/volume.ts';
import { isLive, pool } from './pool.ts';

export const poolName = reservation('pool-name', 'pool.name_taken');

export interface PoolsPorts {
  readonly handler: CommandHandler;
  readonly commandIdOf: (key: string) => string;
  readonly keyOf: (text: string) => string;
}

/** How many volumes a refusal names. */
const NAMED_MAX = 10;

type DataOf<T extends PoolCommand['type']> = Extract<PoolCommand, { type: T }>['data'];

export const poolsOf = ({ handler, commandIdOf, keyOf }: PoolsPorts): ((envelope: CommandEnvelope, command: PoolCommand) => Promise<Answer>) => {
  const of = <C>(envelope: CommandEnvelope, poolId: string, command: C): Handling<C> =>
    ({ id: envelope.id, requestHash: envelope.requestHash, expected: envelope.expected, cancels: envelope.cancels, meta: envelope.meta, stream: streamOf(pool.category, poolId), command });
  const stateOf = async (poolId: string) => (await handler.log.load(streamOf(pool.category, poolId), pool)).state;
  const volumesIn = async (poolId: string) => {
    const state = await stateOf(poolId);
    const ids = isLive(state) ? [...state.reserved.entries()].map(([volumeId]) => volumeId as VolumeId) : [];
    return Promise.all(ids.map(async (volumeId) => ({ volumeId, state: (await handler.log.load(streamOf(volume.category, volumeId), volume)).state })));
  };
  const named = (envelope: CommandEnvelope, name: string, command: { readonly type: 'Claim'; readonly owner: string; readonly label: string } | { readonly type: 'Unclaim'; readonly owner: string }): Promise<Answer> =>
    handler.handle(poolName, { id: commandIdOf(`${envelope.id}:${command.type}`), cancels: [], meta: envelope.meta, stream: streamOf(poolName.category, keyOf(name)), command }).then(({ answer }) => answer);

  const request = async (envelope: CommandEnvelope, data: DataOf<'RequestPool'>): Promise<Answer> => {
    const earlier = await handler.earlier(envelope);
    if (earlier !== undefined) return earlier;
    const claimed = await named(envelope, data.name, { type: 'Claim', owner: data.poolId, label: data.name });
    if (isRefusal(claimed)) return (await handler.refuse(envelope, refuse(claimed.refused, { ...claimed.because, field: 'name' }))).answer;
    const { answer } = await handler.handle(pool, { ...of(envelope, data.poolId, { type: 'RequestPool' as const, data }), likelyNew: true });
    if (isRefusal(answer)) await named(envelope, data.name, { type: 'Unclaim', owner: data.poolId });
    return answer;
  };

  /** What VMs have, or an operation works on, is in use; to go, a pool must have none at all. */
  const inUse = async ({ poolId, work }: DataOf<'WorkOnPool'>): Promise<Refusal | undefined> => {
    if (work !== 'stop' && work !== 'delete') return undefined;
    const using = (await volumesIn(poolId)).flatMap(({ volumeId, state }) => {
      if (state.status === 'absent' || state.status === 'deleted') return [];
      return work === 'delete' || state.vmId !== null || state.operation !== null || state.status === 'deleting' ? [{ volumeId, name: state.name, vmId: state.vmId }] : [];
    });
    return using.length === 0 ? undefined : refuse('pool.in_use', { poolId, count: using.length, volumes: using.slice(0, NAMED_MAX) });
  };

  /** Of one that is gone, or never came to be. Also when that is said a second time: who obeyed it first may have died before this. */
  const giveNameBack = async (envelope: CommandEnvelope, poolId: string, answer: Answer): Promise<Answer> => {
    const after = await stateOf(poolId);
    const name = after.status === 'deleted' ? after.name : after.status === 'failed' ? after.made?.name : undefined;
    if (name !== undefined) await named(envelope, name, { type: 'Unclaim', owner: poolId });
    return answer;
  };

  return async (envelope, command) => {
    const { poolId } = command.data;
    switch (command.type) {
      case 'RequestPool':
        return request(envelope, command.data);
      case 'WorkOnPool': {
        const earlier = await handler.earlier(envelope);
        if (earlier !== undefined) return earlier;
        const state = await stateOf(poolId);
        // Of the others the decider says no anyway.
        const used = isLive(state) && state.made !== null && state.operation === null ? await inUse(command.data) : undefined;
        if (used !== undefined) return (await handler.refuse(envelope, used)).answer;
        return (await handler.handle(pool, of(envelope, poolId, command))).answer;
      }
      case 'FinishPool': {
        const state = await stateOf(poolId);
        const { seen } = command.data;
        const files = new Set(seen?.files.map((name) => name.slice(0, name.indexOf('.'))));
        // One that is being made, or goes, need not have a file.
        const missing = isLive(state) && state.operation?.work === 'refresh'
          ? (await volumesIn(poolId)).filter(({ volumeId, state: one }) => one.status === 'live' && !files.has(volumeId)).map(({ volumeId }) => volumeId)
          : [];
        const { answer } = await handler.handle(pool, of(envelope, poolId, { type: 'FinishPool' as const, data: { ...command.data, missing } }));
        return giveNameBack(envelope, poolId, answer);
      }
      case 'FailPool':
        return giveNameBack(envelope, poolId, (await handler.handle(pool, of(envelope, poolId, command))).answer);
      default:
        return (await handler.handle(pool, of(envelope, poolId, command))).answer;
    }
  };
};
