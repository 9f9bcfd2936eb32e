import { hash } from 'node:crypto';
import { v7 } from 'uuid';
import { canonical } from './canonical.ts';

/** A UUID of version 8 (RFC 9562) from the SHA-256 of a key: the same key always gives the same id. */
export const commandIdOf = (key: string): string => {
  const digits = hash('sha256', key, 'hex');
  const variant = ((parseInt(digits.slice(16, 17), 16) & 0x3) | 0x8).toString(16);
  return `${digits.slice(0, 8)}-${digits.slice(8, 12)}-8${digits.slice(13, 16)}-${variant}${digits.slice(17, 20)}-${digits.slice(20, 32)}`;
};

/** The id of a command's event, numbered from 0: known before the append, the same however often it is tried. */
export const eventIdOf = (commandId: string, index: number): string => commandIdOf(`${commandId}:${String(index)}`);

/** A UUID of version 7: rises with time. */
export const newCommandId = (): string => v7();

/** SHA-256 (hex) of the RFC 8785 form of a request. */
export const requestHashOf = (request: unknown): string => hash('sha256', canonical(request), 'hex');

/** SHA-256 in hex of any text: what a reservation's stream is called. */
export const keyOf = (text: string): string => hash('sha256', text, 'hex');
