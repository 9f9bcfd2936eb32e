import { idOfStream } from '@chronovirt/contracts/ids';
import type { ImageDescription, ImageEvent } from '@chronovirt/contracts/image/image.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';
import type { z } from 'zod';

export interface ImageDocument extends Omit<z.infer<typeof ImageDescription>, 'imageId' | 'version'> {
  /** What whoever made it calls this version. */
  readonly release: string | null;
  readonly id: string;
  readonly createdAt: string;
  readonly position: number;
  /** Position at which it became the version that its family means; of them the highest counts. */
  readonly currentSince: number;
  /** Of the image's stream: its ETag. */
  readonly version: number;
}

export const imageView: Projection<ImageDocument> = {
  name: 'gateway.image',
  version: 4,
  keys: (event) => (event.type === 'ImageRegistered' || event.type === 'ImageDeleted' || event.type === 'ImageMadeCurrent' ? [idOfStream(event.stream)] : []),
  fold: (before, recorded) => {
    const event = recorded as RecordedEvent & ImageEvent;
    switch (event.type) {
      case 'ImageRegistered': {
        const { imageId, version: release = null, ...rest } = event.data;
        return { id: imageId, ...rest, release, createdAt: event.recordedAt, currentSince: event.position, position: event.position, version: event.version };
      }
      case 'ImageMadeCurrent':
        return before === undefined ? undefined : { ...before, currentSince: event.position, position: event.position, version: event.version };
      case 'ImageDeleted':
        return undefined;
    }
  },
};
