import { accelerated } from './filters/accelerated.ts';
import { chosen } from './filters/chosen.ts';
import { equipped } from './filters/equipped.ts';
import { free } from './filters/free.ts';
import { open } from './filters/open.ts';
import { seesTarget } from './filters/sees-target.ts';
import { present } from './filters/present.ts';
import { unstrained } from './filters/unstrained.ts';
import type { Filter, Scorer } from './candidate.ts';
import { spread } from './scorers/spread.ts';

/** In the order in which a person would ask. */
export const filters: readonly Filter[] = [chosen, present, seesTarget, open, accelerated, equipped, free, unstrained];

export const scorers: readonly { readonly name: string; readonly score: Scorer }[] = [{ name: 'spread', score: spread }];
