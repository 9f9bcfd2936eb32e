/** One document for each image that was on its way into the store: what a gateway that begins to lead has to go on with. */
import { categoryOf } from '@chronovirt/contracts/ids';
import type { ImageImportEvent, ImageSource, ImageWish, ImportedVolume } from '@chronovirt/contracts/image/image.events';
import type { Projection } from '@chronovirt/event-log/projection';

export interface ImageImportDocument {
  /** Of the operation. */
  readonly id: string;
  readonly imageId: string;
  readonly source: ImageSource;
  readonly image: ImageWish;
  readonly volume: ImportedVolume | null;
  readonly actor: string;
  readonly status: 'open' | 'done' | 'failed';
  readonly refused: string | null;
  readonly position: number;
}

export const imageImportView: Projection<ImageImportDocument> = {
  name: 'gateway.image_import',
  version: 2,
  keys: (event) => (categoryOf(event.stream) === 'image-import' ? [(event.data as ImageImportEvent['data']).operationId] : []),
  fold(before, recorded, id) {
    const event = recorded as typeof recorded & ImageImportEvent;
    if (event.type === 'ImageImportStarted') {
      const { imageId, source, image, volume = null } = event.data;
      return { id, imageId, source, image, volume, actor: event.meta.actor, status: 'open', refused: null, position: event.position };
    }
    if (before === undefined) return undefined;
    switch (event.type) {
      case 'ImageImportProgressed':
        return before;
      case 'ImageImported':
        return { ...before, status: 'done', position: event.position };
      case 'ImageImportFailed':
        return { ...before, status: 'failed', refused: event.data.refused, position: event.position };
    }
  },
};
