/*
 * Structured logs: one JSON line for each thing that crossed a boundary. The message is a
 * constant sentence, so that it can be counted; everything that varies is a field:
 *
 *   log.info({ vmId, commandId, refused }, 'command refused')
 *
 * Secrets are kept out where they are made (a secret is a type of its own, and nobody logs
 * whole objects). The list below is the second fence, not the first.
 */
import { pino } from 'pino';
import type { DestinationStream, Logger } from 'pino';

export type Log = Logger;
export type LogLevel = 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent';

const LEVELS: ReadonlySet<string> = new Set(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']);

/** Fields that are never printed, at the top and one level below. */
export const secretFields = [
  'authorization', 'cookie', 'creds', 'credentials', 'jwt', 'natsJwt', 'password', 'passphrase', 'privateKey',
  'secret', 'seed', 'signingSeed', 'operatorSeed', 'token', 'joinToken', 'adminToken', 'userData',
] as const;

export interface LogOptions {
  /** Goes into every line. */
  readonly service: string;
  /** Default 'info'. From the environment's word: `levelOf`. */
  readonly level?: LogLevel;
  /** Default: standard output, written at once, so that the last lines before a crash are there. */
  readonly to?: DestinationStream;
}

/** A word that is no level is taken as 'info', since a typing mistake must not cost the logs. */
export const levelOf = (word: string | undefined): LogLevel => (word !== undefined && LEVELS.has(word) ? (word as LogLevel) : 'info');

export function createLog({ service, level = 'info', to }: LogOptions): Log {
  const options = {
    level,
    base: { service, pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: secretFields.flatMap((field) => [field, `*.${field}`]), censor: '[secret]' },
  };
  return to === undefined ? pino(options) : pino(options, to);
}

/** A log for tests and for libraries that were given none. */
export const silentLog: Log = pino({ level: 'silent' });
