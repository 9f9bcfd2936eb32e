import { type Decider, refuse } from '@chronovirt/decider/decider';
import type { ImageCommand } from '@chronovirt/contracts/image/image.commands';
import type { ImageEvent } from '@chronovirt/contracts/image/image.events';

export type Image = { readonly status: 'absent' | 'deleted' } | { readonly status: 'live'; readonly sha256: string; readonly name: string; readonly family: string | null };

/** A disk that VMs are made from. Never changed: another content is another image. */
export const image: Decider<ImageCommand, ImageEvent, Image> = {
  category: 'image',
  initial: { status: 'absent' },
  decide(command, state) {
    switch (command.type) {
      case 'RegisterImage':
        if (state.status === 'absent') return [{ type: 'ImageRegistered', data: command.data }];
        return state.status === 'live' && state.sha256 === command.data.sha256 ? [] : refuse('image.exists', { imageId: command.data.imageId });
      case 'UseImage': {
        const { imageId } = command.data;
        if (state.status !== 'live') return refuse('image.not_found', { imageId });
        return state.family === null ? refuse('image.no_family', { imageId }) : [{ type: 'ImageMadeCurrent', data: { imageId, family: state.family } }];
      }
      case 'DeleteImage':
        return state.status === 'live' ? [{ type: 'ImageDeleted', data: command.data }] : state.status === 'deleted' ? [] : refuse('image.not_found', { imageId: command.data.imageId });
    }
  },
  evolve(state, event) {
    switch (event.type) {
      case 'ImageRegistered':
        return { status: 'live', sha256: event.data.sha256, name: event.data.name, family: event.data.family ?? null };
      case 'ImageMadeCurrent':
        return state;
      case 'ImageDeleted':
        return { ...state, status: 'deleted' };
    }
  },
};
