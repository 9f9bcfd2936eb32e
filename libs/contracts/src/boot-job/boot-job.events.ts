import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { BootJobId } from '../ids.ts';
import { BootJobWish } from './boot-job.ts';

export const bootJobEvents = {
  /** As it is from now on; each change of it is the next revision. */
  BootJobDefined: event(z.object({ jobId: BootJobId, revision: z.int().min(1), ...BootJobWish.shape })),
  BootJobDeleted: event(z.object({ jobId: BootJobId })),
} as const;
export type BootJobEvent = EventOf<typeof bootJobEvents>;
