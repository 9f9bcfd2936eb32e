/*
 * How a figure is reported: beside its goal, as a ratio to a peer or to the physical limit measured in the
 * same run, and whether the goal is met. Goals in milliseconds scale with the floor measured in this run over
 * the floor of the machine the goals were written for; goals per second with its inverse.
 */

/**
 * p50 of a bare node:http POST that makes one durable insert of 1 kB, in milliseconds, on an idle machine of
 * the kind the goals were written for: the middle of 0.44, 0.46 and 0.47.
 */
export const FLOOR_MS_THERE = 0.46;

export interface Figure {
  readonly work: string;
  readonly value: number;
  readonly unit: 'ms' | '/s' | 'MiB' | 'MiB/s' | 's' | '%' | 'x';
  /** 'at most' for times and sizes, 'at least' for rates and ratios. */
  readonly goal?: { readonly kind: 'at most' | 'at least'; readonly value: number; readonly scales: boolean };
  /** What it is compared with in this run: a name and its value in the same unit. */
  readonly beside?: { readonly name: string; readonly value: number };
  readonly note?: string;
}

export interface Judged extends Figure {
  readonly goalHere: number | undefined;
  readonly met: boolean | undefined;
}

export const percentile = (values: readonly number[], share: number): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
};

export const judge = (figure: Figure, floorMs: number): Judged => {
  const { goal } = figure;
  if (goal === undefined) return { ...figure, goalHere: undefined, met: undefined };
  const scale = goal.scales ? floorMs / FLOOR_MS_THERE : 1;
  const goalHere = goal.kind === 'at most' ? goal.value * Math.max(1, scale) : goal.value / Math.max(1, scale);
  return { ...figure, goalHere, met: goal.kind === 'at most' ? figure.value <= goalHere : figure.value >= goalHere };
};

const number = (value: number): string => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));

/** A table for people and for the notes. */
export const table = (figures: readonly Judged[]): string => {
  const rows = figures.map(({ work, value, unit, goal, goalHere, met, beside, note }) => [
    work, `${number(value)} ${unit}`,
    goal === undefined || goalHere === undefined ? '' : `${goal.kind === 'at most' ? '≤' : '≥'} ${number(goal.value)}${goalHere === goal.value ? '' : ` (here ${number(goalHere)})`}`,
    goalHere === undefined ? '' : `${number(goal?.kind === 'at most' ? goalHere / value : value / goalHere)} ×`,
    met === undefined ? '' : met ? 'yes' : 'NO',
    [beside === undefined ? '' : `${beside.name} ${number(beside.value)} ${unit}: ${number(value / beside.value)} ×`, note ?? ''].filter((text) => text !== '').join('; '),
  ]);
  const head = ['work', 'measured', 'goal', 'of goal', 'met', 'beside'];
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length)));
  const line = (row: readonly string[]): string => `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n');
};

export const summary = (figures: readonly Judged[]): string => {
  const judged = figures.filter(({ met }) => met !== undefined);
  const met = judged.filter((figure) => figure.met === true).length;
  return `${String(met)} of ${String(judged.length)} goals met (${((100 * met) / Math.max(1, judged.length)).toFixed(0)} %)`;
};
