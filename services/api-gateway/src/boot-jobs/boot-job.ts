/*
 * A script that people call by a name:  absent ─▶ defined ⇄ deleted.
 *
 * Its id is made of its name, so two of one name are one stream. Revisions go on counting when it is made again after
 * it was deleted: what a VM was given says which it was.
 */
import type { BootJobCommand } from '@chronovirt/contracts/boot-job/boot-job.commands';
import type { BootJobEvent } from '@chronovirt/contracts/boot-job/boot-job.events';
import { type Decider, refuse } from '@chronovirt/decider/decider';

export type KnownJob = { readonly status: 'absent' | 'deleted'; readonly revision: number } | { readonly status: 'defined'; readonly revision: number; readonly as: string };

/** The same text for the same wish, whatever the order of its fields. */
const textOf = ({ name, description, script, variables, timeoutSeconds }: Extract<BootJobEvent, { type: 'BootJobDefined' }>['data'] | Extract<BootJobCommand, { type: 'MakeBootJob' }>['data']): string => 
  JSON.stringify([name, description, script, timeoutSeconds, variables.map((one) => [one.name, one.description, one.type, one.default ?? null, one.required, one.secret])]);

export const bootJob: Decider<BootJobCommand, BootJobEvent, KnownJob> = {
  category: 'boot-job',
  initial: { status: 'absent', revision: 0 },
  decide(command, state) {
    const { jobId } = command.data;
    switch (command.type) {
      case 'MakeBootJob':
        if (state.status !== 'defined') return [{ type: 'BootJobDefined', data: { ...command.data, revision: state.revision + 1 } }];
        return state.as === textOf(command.data) ? [] : refuse('boot_job.name_taken', { jobId, name: command.data.name, field: 'name' });
      case 'ChangeBootJob':
        if (state.status !== 'defined') return refuse('boot_job.not_found', { jobId });
        return state.as === textOf(command.data) ? [] : [{ type: 'BootJobDefined', data: { ...command.data, revision: state.revision + 1 } }];
      case 'DeleteBootJob':
        return state.status === 'defined' ? [{ type: 'BootJobDeleted', data: command.data }] : refuse('boot_job.not_found', { jobId });
    }
  },
  evolve(state, event) {
    switch (event.type) {
      case 'BootJobDefined':
        return { status: 'defined', revision: event.data.revision, as: textOf(event.data) };
      case 'BootJobDeleted':
        return { status: 'deleted', revision: state.revision };
    }
  },
};
