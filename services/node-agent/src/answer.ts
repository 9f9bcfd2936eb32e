import type { Accepted as AcceptedSchema, Answer as AnswerSchema, Refusal as RefusalSchema } from '@chronovirt/contracts/command';
import type { z } from 'zod';

export type Answer = Readonly<z.infer<typeof AnswerSchema>>;
export type Accepted = Readonly<z.infer<typeof AcceptedSchema>>;
export type Refusal = Readonly<z.infer<typeof RefusalSchema>>;

export const refuse = (refused: string, because?: Refusal['because']): Refusal => (because === undefined ? { refused } : { refused, because });

export const isRefusal = (answer: unknown): answer is Refusal => typeof answer === 'object' && answer !== null && 'refused' in answer;

/** A node has no stream, hence no version of one. */
export const accept = (facts?: Accepted['facts']): Accepted => (facts === undefined ? { version: 0 } : { version: 0, facts });

/** The answer of a command that somebody took back before it was obeyed. */
export const CANCELLED = refuse('command.cancelled');
