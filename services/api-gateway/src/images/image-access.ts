/** That somebody fetches an image is recorded; nothing is ever against it. */
import type { ImageId } from '@chronovirt/contracts/ids';
import type { ImageAccessEvent } from '@chronovirt/contracts/image/image.events';
import type { Decider } from '@chronovirt/decider/decider';

export const imageAccess: Decider<{ readonly imageId: ImageId }, ImageAccessEvent, null> = {
  category: 'image-access',
  initial: null,
  decide: ({ imageId }) => [{ type: 'ImageDownloaded', data: { imageId } }],
  evolve: () => null,
};
