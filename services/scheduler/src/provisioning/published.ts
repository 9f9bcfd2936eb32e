/* What a node has brought becomes an image: the end of every saga that publishes. */
import type { Outgoing } from '@chronovirt/contracts/command';
import type { ImageId, VmId } from '@chronovirt/contracts/ids';
import { storedFile, type PublishedImage } from '@chronovirt/contracts/image/image.events';
import type { Facts } from '@chronovirt/decider/decider';
import { copyMs, fact, fetchMs } from './node-verb.ts';

const GIB = 2 ** 30;

/** How long writing a disk as a file that stands alone, and bringing it, may take. Milliseconds. */
export const publishMs = (sizeGib: number): number => copyMs(sizeGib) + fetchMs(sizeGib * GIB);

/** `brought`: what the node's verb answered. `copiedFrom`: the VM whose disk it was. */
export const registerPublished = (imageId: ImageId, image: PublishedImage, sizeGib: number, brought: Facts | undefined, copiedFrom?: VmId): Outgoing => {
  const sha256 = fact<string>(brought, 'sha256');
  return {
    to: 'storage', target: imageId, type: 'RegisterImage',
    data: {
      ...image, imageId, file: storedFile(sha256, 'qcow2'), format: 'qcow2', sha256, sizeBytes: fact(brought, 'sizeBytes'), virtualBytes: fact(brought, 'virtualBytes'),
      minDiskGib: sizeGib, ...(copiedFrom === undefined ? {} : { copiedFrom }),
    },
  };
};

export const forgetPublished = (imageId: ImageId): Outgoing => ({ to: 'storage', target: imageId, type: 'DeleteImage', data: { imageId } });
