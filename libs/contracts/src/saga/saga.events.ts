import { z } from 'zod';
import { event } from '../event.ts';
import { Json, text } from '../text.ts';

const at = z.int().min(0);
const step = text(60);
const Why = z.object({ refused: text(100), because: Json.optional() });

/** The same for every saga; the shapes are those of SagaEvent in libs/decider. `at` is milliseconds since the epoch. */
export const sagaEvents = {
  SagaStarted: event(z.object({ saga: text(60), input: Json, steps: z.array(z.object({ name: step, after: z.array(step), deadlineMs: z.int() })), deadlineMs: z.int(), at })),
  StepAnswered: event(z.object({ step, facts: Json, at })),
  StepRefused: event(z.object({ step, refused: text(100), because: Json, at })),
  StepOverdue: event(z.object({ step, at })),
  SagaCancelled: event(z.object({ because: text(300), at })),
  UndoAnswered: event(z.object({ step, at })),
  UndoOverdue: event(z.object({ step, at })),
  SagaEnded: event(z.object({ outcome: z.enum(['succeeded', 'compensated', 'failed']), owed: z.array(step), why: Why.nullable(), at })),
} as const;
