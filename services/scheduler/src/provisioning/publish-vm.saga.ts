/*
 * Makes an image of what a VM's first disk holds now, or held when a snapshot was taken.
 *
 *     disk ─▶ image
 *
 * The VM has this operation in hand for as long as its node reads: so it is not started, and no layer of it is
 * merged, meanwhile. The node writes the layers as one file that stands alone, and brings it to the control
 * plane, which checks it like any upload; only then it is registered.
 *
 * What the node does leaves nothing that would have to be taken back: the undo only looks, and cancels.
 */
import type { Outgoing } from '@chronovirt/contracts/command';
import type { ImageId, OperationId, VolumeId } from '@chronovirt/contracts/ids';
import type { PublishedImage } from '@chronovirt/contracts/image/image.events';
import type { Layer } from '@chronovirt/contracts/vm/snapshot';
import type { Saga } from '@chronovirt/decider/saga';
import { failVm, finishVm, type OnNode, verb } from './node-verb.ts';
import { forgetPublished, publishMs, registerPublished } from './published.ts';

export interface PublishVm extends OnNode {
  readonly operationId: OperationId;
  readonly volumeId: VolumeId;
  readonly layer: Layer;
  readonly sizeGib: number;
  readonly imageId: ImageId;
  readonly image: PublishedImage;
}

export const publishVm: Saga<PublishVm, Outgoing> = {
  name: 'publish-vm',
  steps: {
    disk: {
      deadlineMs: 60_000,
      moreMs: ({ sizeGib }) => publishMs(sizeGib),
      undoDeadlineMs: 30_000,
      run: (vm) => verb('PublishDisk', vm, { operationId: vm.operationId, volumeId: vm.volumeId, layer: vm.layer }),
      undo: (vm) => verb('ObserveDomain', vm, {}),
    },
    image: {
      after: ['disk'],
      deadlineMs: 30_000,
      run: ({ vmId, imageId, image, sizeGib }, facts) => registerPublished(imageId, image, sizeGib, facts['disk'], vmId),
      undo: ({ imageId }) => forgetPublished(imageId),
    },
  },
  done: (vm, facts) => {
    const { sha256: _sum, sizeBytes: _size, virtualBytes: _virtual, ...seen } = { ...facts['disk'] };
    return finishVm(vm, seen, { how: 'published' });
  },
  failed: failVm,
};
