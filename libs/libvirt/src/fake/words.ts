/** The numbers of libvirt's words where the fake has to write them itself. */
import { domainStateAndReason } from '../layouts.ts';
import type { DomainState } from '../layouts.ts';
import { Reader, Writer } from '../xdr.ts';

const writer = new Writer(64);
const known = new Map<string, { readonly state: number; readonly reason: number }>();

/** As the wire has them; the layouts know. */
export function stateNumbers(state: DomainState, reason: string): { readonly state: number; readonly reason: number } {
  const key = `${state} ${reason}`;
  let numbers = known.get(key);
  if (numbers === undefined) {
    writer.reset();
    domainStateAndReason.write(writer, { state: state === 'unknown' ? 'nostate' : state, reason });
    const reader = new Reader(writer.take());
    numbers = { state: reader.i32(), reason: reader.i32() };
    known.set(key, numbers);
  }
  return numbers;
}

