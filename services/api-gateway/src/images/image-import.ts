/*
 * An image on its way into the store:  absent ──Start──▶ open ──Finish──▶ done
 *                                                         └───Fail───▶ failed
 *
 * Whoever leads among the gateways carries it out (image-imports.os.ts); should it die, the next one goes on.
 */
import type { ImageImportCommand } from '@chronovirt/contracts/image/image.commands';
import type { ImageImportEvent } from '@chronovirt/contracts/image/image.events';
import { type Decider, refuse } from '@chronovirt/decider/decider';

export type ImageImport = { readonly status: 'absent' | 'done' | 'failed' } | { readonly status: 'open'; readonly percent: number };

export const imageImport: Decider<ImageImportCommand, ImageImportEvent, ImageImport> = {
  category: 'image-import',
  initial: { status: 'absent' },
  observations: ['ImageImportProgressed'],
  decide(command, state) {
    const { data } = command;
    if (command.type === 'StartImageImport') return state.status === 'absent' ? [{ type: 'ImageImportStarted', data: command.data }] : [];
    if (state.status === 'absent') return refuse('image.import_not_found', { operationId: data.operationId });
    if (state.status !== 'open') return [];
    switch (command.type) {
      case 'ReportImageImport':
        return command.data.percent > state.percent ? [{ type: 'ImageImportProgressed', data: command.data }] : [];
      case 'FinishImageImport':
        return [{ type: 'ImageImported', data: command.data }];
      case 'FailImageImport':
        return [{ type: 'ImageImportFailed', data: command.data }];
    }
  },
  evolve(state, event) {
    switch (event.type) {
      case 'ImageImportStarted':
        return { status: 'open', percent: 0 };
      case 'ImageImportProgressed':
        return state.status === 'open' ? { status: 'open', percent: event.data.percent } : state;
      case 'ImageImported':
        return { status: 'done' };
      case 'ImageImportFailed':
        return { status: 'failed' };
    }
  },
};
