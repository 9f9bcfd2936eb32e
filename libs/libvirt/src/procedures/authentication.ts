/*
 * The words of SASL (sasl.ts has their meaning). What is said may be nothing or empty, and SASL tells
 * the two apart, so the wire has a word for it besides the length. Bytes are C characters here, of which
 * XDR makes four bytes each.
 */
import { text } from '../layouts.ts';
import { high, remote } from '../procedure.ts';
import { array, bool, i32, mapped, struct } from '../xdr.ts';
import type { Codec } from '../xdr.ts';

const charactersMax = 65_536;

export interface SaslAnswer {
  readonly complete: boolean;
  readonly data: Buffer | null;
}

/** `nil` and then the characters. */
const saslData: Codec<Buffer | null, Uint8Array | null> = mapped(struct({ nil: bool, characters: array(i32, charactersMax) }), {
  decode: ({ nil, characters }) => (nil ? null : Buffer.from(characters.map((character) => character & 0xff))),
  encode: (data: Uint8Array | null) => ({ nil: data === null, characters: [...(data ?? [])] }),
});

const answer = struct({ complete: bool, data: saslData });

export const saslProcedures = {
  /** The mechanisms on offer, with commas between them. */
  authSaslInit: remote(67, '0.4.1', {}, text, high),
  authSaslStart: remote(68, '0.4.1', { mechanism: text, data: saslData }, answer, high),
  authSaslStep: remote(69, '0.4.1', { data: saslData }, answer, high),
} as const;
