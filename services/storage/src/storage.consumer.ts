/*
 * What storage does with the commands and reports that come in: pools and the space promised of them, the
 * records of volumes, images by name. Joined to ports, so the simulation runs this very code.
 */
import type { BackupReport, PoolReport } from '@chronovirt/contracts/agent/agent.commands';
import type { BackupCommand } from '@chronovirt/contracts/backup/backup.commands';
import type { BackupPolicyCommand } from '@chronovirt/contracts/backup-policy/backup-policy.commands';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import { streamOf } from '@chronovirt/contracts/ids';
import type { ImageCommand } from '@chronovirt/contracts/image/image.commands';
import type { PoolCommand } from '@chronovirt/contracts/pool/pool.commands';
import type { VolumeCommand } from '@chronovirt/contracts/volume/volume.commands';
import { type Answer, isRefusal, refuse } from '@chronovirt/decider/decider';
import { reservation } from '@chronovirt/decider/reservation';
import type { CommandHandler, Handling } from '@chronovirt/event-log/handle';
import { obeyOrRehearse } from '@chronovirt/event-log/rehearse';
import { archive } from './archive/archive.ts';
import { backupPolicy } from './archive/backup-policy.ts';
import type { ImageUsers } from './image/image-user.projection.ts';
import { image } from './image/image.ts';
import { isLive, pool } from './pool/pool.ts';
import { poolsOf } from './pool/pools.consumer.ts';
import { volumesOf } from './volume/volumes.consumer.ts';

export const imageName = reservation('image-name', 'image.name_taken');

export interface StoragePorts {
  readonly handler: CommandHandler;
  readonly commandIdOf: (key: string) => string;
  readonly keyOf: (text: string) => string;
  /** VMs whose disk began as this image, or that have it in their drive: a few of them, and how many in all. */
  readonly usersOf: (imageId: string) => Promise<ImageUsers>;
}

export const storage = (ports: StoragePorts) => ({
  ...partsOf(ports),
  /** Obeys a command, or tells what it was answered before; one that rehearses another is told what that would do. */
  obey: (envelope: CommandEnvelope): Promise<Answer> => obeyOrRehearse(ports.handler, envelope, (meant, handler) => partsOf({ ...ports, handler }).obey(meant)),
});

const partsOf = ({ handler, commandIdOf, keyOf, usersOf }: StoragePorts) => {
  const registerImage = async (envelope: CommandEnvelope, command: Extract<ImageCommand, { type: 'RegisterImage' }>): Promise<Answer> => {
    const earlier = await handler.earlier(envelope);
    if (earlier !== undefined) return earlier;
    const { imageId, name } = command.data;
    const claimed = await handler.handle(imageName, {
      id: commandIdOf(`${envelope.id}:name`), cancels: [], meta: envelope.meta, stream: streamOf(imageName.category, keyOf(name)), command: { type: 'Claim', owner: imageId, label: name },
    });
    if (isRefusal(claimed.answer)) return (await handler.refuse(envelope, claimed.answer)).answer;
    return (await handler.handle(image, handling(envelope, streamOf(image.category, imageId), command))).answer;
  };

  const deleteImage = async (envelope: CommandEnvelope, command: Extract<ImageCommand, { type: 'DeleteImage' }>): Promise<Answer> => {
    const { imageId } = command.data;
    const earlier = await handler.earlier(envelope);
    if (earlier !== undefined) return earlier;
    // Overlays are read through the image for as long as they live. Of a VM that is asked for at this very
    // moment nothing is known yet; only the record goes, so it is built all the same, unless its node has still to
    // check a file that was put there.
    const { vms, count } = await usersOf(imageId);
    if (count > 0) return (await handler.refuse(envelope, refuse('image.in_use', { imageId, count, vms }))).answer;
    const { state } = await handler.log.load(streamOf(image.category, imageId), image);
    const { answer } = await handler.handle(image, handling(envelope, streamOf(image.category, imageId), command));
    if (!isRefusal(answer) && state.status === 'live') {
      await handler.handle(imageName, { id: commandIdOf(`${envelope.id}:name`), cancels: [], meta: envelope.meta, stream: streamOf(imageName.category, keyOf(state.name)), command: { type: 'Unclaim', owner: imageId } });
    }
    return answer;
  };

  const obeyVolume = volumesOf({ handler, commandIdOf, keyOf });
  const obeyPool = poolsOf({ handler, commandIdOf, keyOf });

  return {
    obey: async (envelope: CommandEnvelope): Promise<Answer> => {
      const command = envelope as unknown as PoolCommand | VolumeCommand | ImageCommand | BackupCommand | BackupPolicyCommand;
      switch (command.type) {
        case 'RegisterImage':
          return registerImage(envelope, command);
        case 'UseImage':
          return (await handler.handle(image, handling(envelope, streamOf(image.category, command.data.imageId), command))).answer;
        case 'DeleteImage':
          return deleteImage(envelope, command);
        case 'MakeBackupPolicy':
        case 'ChangeBackupPolicy':
        case 'DeleteBackupPolicy':
          return (await handler.handle(backupPolicy, handling(envelope, streamOf(backupPolicy.category, command.data.policyId), command))).answer;
        case 'BeginBackup':
        case 'RecordBackup':
        case 'AbandonBackup':
        case 'DeleteBackup':
        case 'FinishDeleteBackup':
        case 'AbandonDeleteBackup':
        case 'RecordBackupProgress':
        case 'RecordDrill':
          return (await handler.handle(archive, handling(envelope, streamOf(archive.category, command.data.vmId), command))).answer;
        case 'RegisterPool':
        case 'RecordPool':
        case 'RequestPool':
        case 'ChangePool':
        case 'WorkOnPool':
        case 'FinishPool':
        case 'FailPool':
        case 'ReserveSpace':
        case 'ResizeSpace':
        case 'ReleaseSpace':
          return obeyPool(envelope, command);
        default:
          return obeyVolume(envelope, command);
      }
    },

    /** A node says how far a backup has come. It may say the same twice: what is no news writes nothing. */
    progress: async ({ nodeId, vmId, backupId, percent }: BackupReport): Promise<void> => {
      const command: BackupCommand = { type: 'RecordBackupProgress', data: { nodeId, vmId, backupId, percent } };
      await handler.handle(archive, { id: commandIdOf(`progress:${backupId}:${nodeId}:${String(percent)}`), cancels: [], meta: { actor: nodeId, nodeId, vmId }, stream: streamOf(archive.category, vmId), command, store: 'events' });
    },

    /** A node says which pools it has, and how they are. No news writes nothing; the ids are those of what it says. */
    report: async ({ made = false, usedGib, active = true, ...report }: PoolReport): Promise<void> => {
      const { poolId, nodeId, name, capacityGib } = report;
      const record = (id: string, command: Extract<PoolCommand, { type: 'RegisterPool' | 'RecordPool' }>) =>
        handler.handle(pool, { id: commandIdOf(id), cancels: [], meta: { actor: nodeId, nodeId }, stream: streamOf(pool.category, poolId), command, store: 'events' });
      if (!made) await record(`pool:${poolId}:${nodeId}:${String(capacityGib)}:${name}`, { type: 'RegisterPool', data: report });
      if (usedGib === undefined) return;
      const { state } = await handler.log.load(streamOf(pool.category, poolId), pool);
      // Not the first to say so: the pool may have been seen otherwise in between, and this is news again.
      const seen = isLive(state) ? JSON.stringify(state.seen[nodeId] ?? null) : '';
      await record(`pool:${poolId}:${nodeId}:${String(capacityGib)}:${String(usedGib)}:${String(active)}:${seen}`, { type: 'RecordPool', data: { poolId, nodeId, active, capacityGib, usedGib } });
    },
  };
};

const handling = <C>(envelope: CommandEnvelope, stream: string, command: C): Handling<C> =>
  ({ id: envelope.id, requestHash: envelope.requestHash, expected: envelope.expected, cancels: envelope.cancels, meta: envelope.meta, stream, command });
