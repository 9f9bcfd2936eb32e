/*
 * Who needs which image: one document for each VM, and for each further volume, that is not deleted. An image
 * that disks began as, or that stands in a drive, is not forgotten (DELETE /v1/images/:id names them).
 */
import { NAMED_MAX } from '@chronovirt/decider/decider';
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import type { Kernel, VmEvent } from '@chronovirt/contracts/vm/vm.events';
import type { VolumeEvent } from '@chronovirt/contracts/volume/volume.events';
import type { Projection } from '@chronovirt/event-log/projection';

export interface ImageUser {
  /** Of the VM, or of the volume. */
  readonly vmId: string;
  readonly name: string;
  /** What its disk began as; null: blank. */
  readonly imageId: string | null;
  readonly mediumId: string | null;
  /** In its second drive. */
  readonly driversId: string | null;
  /** What it is started with. */
  readonly kernelId: string | null;
  readonly initrdId: string | null;
}

export interface ImageUsers {
  /** The first ten by name. */
  readonly vms: readonly { readonly id: string; readonly name: string }[];
  readonly count: number;
}

const idsOf = (kernel: Kernel | null | undefined): Pick<ImageUser, 'kernelId' | 'initrdId'> => ({ kernelId: kernel?.imageId ?? null, initrdId: kernel?.initrd?.imageId ?? null });

const TYPES = ['VmRequested', 'VmReconfigured', 'VmDeleted', 'VolumeCreated', 'VolumeDeleted'];

export const imageUser: Projection<ImageUser> = {
  name: 'storage.image_user',
  version: 3,
  keys: (event) => (TYPES.includes(event.type) && ['vm', 'volume'].includes(categoryOf(event.stream)) ? [idOfStream(event.stream)] : []),
  fold(user, recorded, key) {
    const event = recorded as unknown as VmEvent | VolumeEvent; // the log has checked the shape against the table of the type
    switch (event.type) {
      case 'VmRequested': {
        const { name, imageId, media, drivers, kernel } = event.data.spec;
        return { vmId: key, name, imageId, mediumId: media?.imageId ?? null, driversId: drivers?.imageId ?? null, ...idsOf(kernel) };
      }
      case 'VmReconfigured': {
        const { name, media, drivers, kernel } = event.data.change;
        return user === undefined ? undefined : { ...user, name: name ?? user.name, mediumId: media === undefined ? user.mediumId : (media?.imageId ?? null), driversId: drivers === undefined ? user.driversId : (drivers?.imageId ?? null), ...(kernel === undefined ? {} : idsOf(kernel)) };
      }
      // A VM's first disk goes with it, and is the VM's own to tell of.
      case 'VolumeCreated':
        return event.data.name === undefined || event.data.imageId === null ? undefined : { vmId: key, name: event.data.name, imageId: event.data.imageId, mediumId: null, driversId: null, ...idsOf(null) };
      case 'VolumeDeleted':
      case 'VmDeleted':
        return undefined;
      default:
        return user;
    }
  },
};

/** The same answer from documents in memory. */
export const usersAmong = (users: Iterable<ImageUser>, imageId: string): ImageUsers => {
  const found = [...users].filter((user) => [user.imageId, user.mediumId, user.driversId, user.kernelId, user.initrdId].includes(imageId)).sort((a, b) => (a.name < b.name ? -1 : 1));
  return { count: found.length, vms: found.slice(0, NAMED_MAX).map(({ vmId, name }) => ({ id: vmId, name })) };
};
