/** RFC 9110, 14.2: one range of bytes. Several at once are answered like none: with everything. */

export interface Range {
  readonly from: number;
  /** The last one, included. */
  readonly to: number;
}

/** The range a header asks of a thing of so many bytes; undefined: all of it; 'unsatisfiable': there is no such part. */
export const rangeOf = (header: string | undefined, bytes: number): Range | undefined | 'unsatisfiable' => {
  const [, first, last] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header?.trim() ?? '') ?? [];
  if (first === undefined || last === undefined || (first === '' && last === '')) return undefined;
  if (first === '') return last === '0' || bytes === 0 ? 'unsatisfiable' : { from: Math.max(0, bytes - Number(last)), to: bytes - 1 };
  const from = Number(first);
  if (last !== '' && Number(last) < from) return undefined;
  return from >= bytes ? 'unsatisfiable' : { from, to: last === '' ? bytes - 1 : Math.min(Number(last), bytes - 1) };
};
