import { idOfStream } from '@chronovirt/contracts/ids';
import type { ImageDescription, ImageEvent } from '@chronovirt/contracts/image/image.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';
import type { z } from 'zod';

export interface ImageDocument extends Omit<z.infer<typeof ImageDescription>, 'imageId'> {
  readonly id: string;
  readonly createdAt: string;
  readonly position: number;
  /** Of the image's stream: its ETag. */
  readonly version: number;
}

export const imageView: Projection<ImageDocument> = {
  name: 'gateway.image',
  version: 3,
  keys: (event) => (event.type === 'ImageRegistered' || event.type === 'ImageDeleted' ? [idOfStream(event.stream)] : []),
  fold: (_before, recorded) => {
    const event = recorded as RecordedEvent & ImageEvent;
    switch (event.type) {
      case 'ImageRegistered': {
        const { imageId, ...rest } = event.data;
        return { id: imageId, ...rest, createdAt: event.recordedAt, position: event.position, version: event.version };
      }
      case 'ImageDeleted':
        return undefined;
    }
  },
};
