/*
 * What storage does with commands about volumes beyond asking their decider: names, which are unique, and what
 * one volume has to do with others, with a pool or with an image.
 */
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import { type NodeId, type PoolId, streamOf } from '@chronovirt/contracts/ids';
import type { PoolCommand } from '@chronovirt/contracts/pool/pool.commands';
import type { VolumeCommand } from '@chronovirt/contracts/volume/volume.commands';
import type { VolumeEvent } from '@chronovirt/contracts/volume/volume.events';
import { type Answer, isRefusal, refuse, type Refusal } from '@chronovirt/decider/decider';
import { reservation } from '@chronovirt/decider/reservation';
import type { CommandHandler, Handling } from '@chronovirt/event-log/handle';
import { image } from '../image/image.ts';
import { isLive as isLivePool, nodesOf, type Pool, pool } from '../pool/pool.ts';
import { volume } from './volume.ts';

export const volumeName = reservation('volume-name', 'volume.name_taken');

export interface VolumesPorts {
  readonly handler: CommandHandler;
  readonly commandIdOf: (key: string) => string;
  readonly keyOf: (text: string) => string;
}

type DataOf<T extends VolumeCommand['type']> = Extract<VolumeCommand, { type: T }>['data'];
type Requested = Extract<VolumeEvent, { type: 'VolumeRequested' }>['data'];

export const volumesOf = ({ handler, commandIdOf, keyOf }: VolumesPorts): ((envelope: CommandEnvelope, command: VolumeCommand) => Promise<Answer>) => {
  const of = <C>(envelope: CommandEnvelope, volumeId: string, command: C): Handling<C> =>
    ({ id: envelope.id, requestHash: envelope.requestHash, expected: envelope.expected, cancels: envelope.cancels, meta: envelope.meta, stream: streamOf(volume.category, volumeId), command });
  /** As it is now, not as this process saw it last: another one may have obeyed what comes here a second time. */
  const stateOf = async (volumeId: string) => (await handler.log.load(streamOf(volume.category, volumeId), volume, 'fresh')).state;
  const poolOf = async (poolId: PoolId): Promise<Pool> => (await handler.log.load(streamOf(pool.category, poolId), pool)).state;
  const seenBy = async (poolId: PoolId): Promise<readonly NodeId[]> => nodesOf(await poolOf(poolId));

  /** Of a pool that is stopped nobody takes a volume. What was answered before is answered so again. */
  const notOpen = async (envelope: CommandEnvelope, volumeId: string): Promise<Answer | undefined> => {
    const earlier = await handler.earlier(envelope);
    if (earlier !== undefined) return earlier;
    const state = await stateOf(volumeId);
    const home = 'poolId' in state ? await poolOf(state.poolId) : undefined;
    if (home === undefined || !isLivePool(home) || home.status === 'active') return undefined;
    return (await handler.refuse(envelope, refuse('pool.stopped', { poolId: home.poolId, status: home.status, volumeId }))).answer;
  };

  const claim = (envelope: CommandEnvelope, owner: string, name: string): Promise<Answer> =>
    handler.handle(volumeName, { id: commandIdOf(`${envelope.id}:name`), cancels: [], meta: envelope.meta, stream: streamOf(volumeName.category, keyOf(name)), command: { type: 'Claim', owner, label: name } }).then(({ answer }) => answer);
  const unclaim = async (envelope: CommandEnvelope, owner: string, name: string): Promise<void> => {
    await handler.handle(volumeName, { id: commandIdOf(`${envelope.id}:no-name`), cancels: [], meta: envelope.meta, stream: streamOf(volumeName.category, keyOf(name)), command: { type: 'Unclaim', owner } });
  };

  /** The name first. What does not come to be gives it back. */
  const underName = async (envelope: CommandEnvelope, volumeId: string, name: string, work: () => Promise<Answer>): Promise<Answer> => {
    const earlier = await handler.earlier(envelope);
    // It was taken back, or whoever refused it has died before giving the name back.
    if (earlier !== undefined && isRefusal(earlier)) await unclaim(envelope, volumeId, name);
    if (earlier !== undefined) return earlier;
    const claimed = await claim(envelope, volumeId, name);
    if (isRefusal(claimed)) return (await handler.refuse(envelope, refuse(claimed.refused, { ...claimed.because, field: 'name' }))).answer;
    const answer = await work();
    if (isRefusal(answer)) await unclaim(envelope, volumeId, name);
    return answer;
  };

  /** Everything that a request leaves open, from what is there now; or why it cannot be. */
  const resolve = async ({ nodeId, sizeGib, ...wish }: DataOf<'RequestVolume'>): Promise<Requested | Refusal> => {
    const { poolId, source } = wish;
    const nodes = await seenBy(poolId);
    if (nodes.length === 0) return refuse('pool.unknown', { poolId, field: 'pool' });
    let home = nodeId ?? nodes[0];
    let size = sizeGib;
    if (source.kind === 'image') {
      const { state } = await handler.log.load(streamOf(image.category, source.imageId), image);
      if (state.status !== 'live') return refuse('image.unknown', { imageId: source.imageId, field: 'from' });
    }
    if (source.kind === 'volume') {
      const from = await stateOf(source.volumeId);
      if (from.status === 'absent' || from.status === 'deleted') return refuse('volume.unknown', { volumeId: source.volumeId, field: 'from' });
      size ??= from.sizeGib;
      if (size < from.sizeGib) return refuse('volume.smaller_than_source', { sizeGib: size, sourceGib: from.sizeGib, field: 'sizeGib' });
      const both = (await seenBy(from.poolId)).filter((node) => nodes.includes(node));
      home = nodeId ?? both[0];
      if (home === undefined || !both.includes(home)) return refuse('volume.elsewhere', { volumeId: source.volumeId, nodeId: from.nodeId, poolId: from.poolId });
    }
    if (size === null) return refuse('volume.size_missing', { field: 'sizeGib' });
    if (home === undefined || !nodes.includes(home)) return refuse('pool.not_on_node', { poolId, nodeId: home ?? null, field: 'pool' });
    return { ...wish, nodeId: home, sizeGib: size };
  };

  const request = async (envelope: CommandEnvelope, data: DataOf<'RequestVolume'>): Promise<Answer> => {
    const earlier = await handler.earlier(envelope);
    if (earlier !== undefined) return earlier;
    const resolved = await resolve(data);
    if (isRefusal(resolved)) return (await handler.refuse(envelope, resolved)).answer;
    return underName(envelope, data.volumeId, data.name, async () => (await handler.handle(volume, { ...of(envelope, data.volumeId, { type: 'RequestVolume' as const, data: resolved }), likelyNew: true })).answer);
  };

  /** Obeyed as it is, and then the name is free: also when it comes a second time, since who obeyed it first may have died before that. */
  const giveNameBack = async (envelope: CommandEnvelope, command: Extract<VolumeCommand, { type: 'DeleteVolume' | 'FailVolume' }>): Promise<Answer> => {
    const { volumeId } = command.data;
    const { answer } = await handler.handle(volume, of(envelope, volumeId, command));
    const state = await stateOf(volumeId);
    const name = 'name' in state ? state.name : command.type === 'DeleteVolume' ? command.data.name : undefined;
    const gone = state.status === 'absent' || state.status === 'deleted' || state.status === 'failed';
    if (gone && name !== undefined && name !== null) await unclaim(envelope, volumeId, name);
    return answer;
  };

  /** Each has a stream of its own; repeated as a whole, done once. */
  const detachAll = async (envelope: CommandEnvelope, { vmId, volumes }: DataOf<'DetachVolumes'>): Promise<Answer> => {
    for (const { volumeId, delete: operationId } of volumes) {
      const { answer } = await handler.handle(volume, {
        id: commandIdOf(`${envelope.id}:${volumeId}`), cancels: [], meta: envelope.meta, stream: streamOf(volume.category, volumeId), command: { type: 'DetachVolume', data: { volumeId, vmId, delete: operationId } },
      });
      if (isRefusal(answer)) return answer;
    }
    return (await handler.refuse(envelope, { version: 0 })).answer;
  };

  /** A command of one of several, under an id of its own. */
  const partOf = (envelope: CommandEnvelope, volumeId: string, what: 'space' | 'record'): CommandEnvelope => ({
    id: commandIdOf(`${envelope.id}:${volumeId}:${what}`), cancels: envelope.cancels.flatMap((id) => (['space', 'record'] as const).map((one) => commandIdOf(`${id}:${volumeId}:${one}`))),
    meta: envelope.meta, to: envelope.to, target: envelope.target, type: envelope.type, data: envelope.data,
  });
  const spaceOf = async (envelope: CommandEnvelope, command: Extract<PoolCommand, { type: 'ReserveSpace' | 'ReleaseSpace' }>): Promise<Answer> =>
    (await handler.handle(pool, { id: envelope.id, cancels: envelope.cancels, meta: envelope.meta, stream: streamOf(pool.category, command.data.poolId), command })).answer;

  /** Space, name and record of each; repeated as a whole, done once. What is refused for one is taken back for all, by who asked. */
  const createAll = async (envelope: CommandEnvelope, { vmId, poolId, nodeId, volumes }: DataOf<'CreateVolumes'>): Promise<Answer> => {
    for (const { volumeId, sizeGib, name } of volumes) {
      const space = await spaceOf(partOf(envelope, volumeId, 'space'), { type: 'ReserveSpace', data: { poolId, volumeId, vmId, sizeGib } });
      if (isRefusal(space)) return (await handler.refuse(envelope, space)).answer;
      const part = partOf(envelope, volumeId, 'record');
      const data = { poolId, nodeId, volumeId, vmId, imageId: null, sizeGib, ...(name === undefined ? {} : { name }) };
      const create = async (): Promise<Answer> => (await handler.handle(volume, of(part, volumeId, { type: 'CreateVolume' as const, data }))).answer;
      const made = await (name === undefined ? create() : underName(part, volumeId, name, create));
      if (isRefusal(made)) return (await handler.refuse(envelope, made)).answer;
    }
    return (await handler.refuse(envelope, { version: 0 })).answer;
  };

  /** What was to make them makes nothing from here on. */
  const deleteAll = async (envelope: CommandEnvelope, { vmId, poolId, volumes }: DataOf<'DeleteVolumes'>): Promise<Answer> => {
    for (const { volumeId, name } of volumes) {
      const part = partOf(envelope, volumeId, 'record');
      await handler.handle(volume, of(part, volumeId, { type: 'DeleteVolume' as const, data: { volumeId, vmId } }));
      if (name !== undefined) await unclaim(part, volumeId, name);
      await spaceOf(partOf(envelope, volumeId, 'space'), { type: 'ReleaseSpace', data: { poolId, volumeId, vmId } });
    }
    return (await handler.refuse(envelope, { version: 0 })).answer;
  };

  return async (envelope, command) => {
    switch (command.type) {
      case 'DetachVolumes':
        return detachAll(envelope, command.data);
      case 'CreateVolumes':
        return createAll(envelope, command.data);
      case 'DeleteVolumes':
        return deleteAll(envelope, command.data);
      case 'RequestVolume':
        return request(envelope, command.data);
      case 'CreateVolume': {
        const { volumeId, name } = command.data;
        const create = async (): Promise<Answer> => (await handler.handle(volume, { ...of(envelope, volumeId, command), likelyNew: true })).answer;
        return name === undefined ? create() : underName(envelope, volumeId, name, create);
      }
      case 'HoldVolume':
      case 'WorkOnVolume':
      case 'RemoveDetachedVolume':
        return (await notOpen(envelope, command.data.volumeId)) ?? (await handler.handle(volume, of(envelope, command.data.volumeId, command))).answer;
      case 'AttachVolume': {
        const { volumeId } = command.data;
        const stopped = await notOpen(envelope, volumeId);
        if (stopped !== undefined) return stopped;
        const state = await stateOf(volumeId);
        const nodes = 'poolId' in state ? await seenBy(state.poolId) : [];
        return (await handler.handle(volume, of(envelope, volumeId, { type: 'AttachVolume' as const, data: { ...command.data, seenBy: nodes } }))).answer;
      }
      case 'DeleteVolume':
      case 'FailVolume':
        return giveNameBack(envelope, command);
      default:
        return (await handler.handle(volume, of(envelope, command.data.volumeId, command))).answer;
    }
  };
};
