import { BadEnvironment, type HostConfig, readHostConfig } from '@chronovirt/host/config';
import { tracingIsWanted } from '@chronovirt/observability/tracing';
import { z } from 'zod';

const origin = z.string().refine((value) => value === '' || (URL.canParse(value) && new URL(value).origin === value), 'must be origins such as https://desk.example, with commas between them');

const Own = z.object({
  CV_INSTALLATION: z.string().regex(/^[0-9a-f]{8}$/, 'must be 8 hexadecimal digits'),
  CV_PORT: z.coerce.number().int().min(0).max(65_535).default(8_080),
  CV_GATEWAY_HOST: z.string().min(1).default('127.0.0.1'),
  CV_GATEWAY_ADMIN_TOKEN_SHA256: z.string().regex(/^[0-9a-f]{64}$/, 'must be a SHA-256 in hexadecimal').optional(),
  CV_GATEWAY_NATS_KEYS: z.string().min(1).optional(),
  CV_GATEWAY_NATS_PUBLIC_URL: z.string().min(1).optional(),
  CV_GATEWAY_CONSOLE_URL: z.url({ protocol: /^(ws|http)s?$/ }).optional(),
  CV_GATEWAY_CONSOLE_ORIGINS: z.string().default('').transform((value) => value.split(',').map((one) => one.trim())).pipe(z.array(origin)),
  CV_GATEWAY_CONSOLE_IDLE_MINUTES: z.coerce.number().int().min(1).max(10_080).default(60),
});

export interface GatewayConfig extends HostConfig {
  /** 8 hexadecimal digits, part of every token. */
  readonly installation: string;
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** The admin token's SHA-256: a token with it is issued at the first start. */
  readonly adminTokenSha256: string | undefined;
  /** Folder with installation.json and system.creds; without it no node can join. */
  readonly natsKeys: string | undefined;
  /** What agents are told to connect to. */
  readonly natsPublicUrls: readonly string[];
  /** Below which consoles are reached from outside; undefined: where the caller came to. */
  readonly consoleUrl: string | undefined;
  /** Origins of pages, beside the gateway's own, that may connect to consoles. */
  readonly consoleOrigins: readonly string[];
  /** A console without a byte either way for so long is closed. */
  readonly consoleIdleMs: number;
  /** Requests become spans, because somebody collects them. */
  readonly traced: boolean;
}

/** Reads the environment once. Throws BadEnvironment with everything that is wrong, by name. */
export const readConfig = (environment: Readonly<Record<string, string | undefined>> = process.env): GatewayConfig => {
  const own = Own.safeParse(environment);
  const wrong = own.success ? [] : own.error.issues.map(({ path, message }) => `  ${path.join('.')}: ${environment[String(path[0])] === undefined ? 'is not set' : message}`);
  let host: HostConfig | undefined;
  try {
    host = readHostConfig('gateway', environment);
  } catch (error) {
    if (!(error instanceof BadEnvironment)) throw error;
    wrong.unshift(...error.message.split('\n').slice(1));
  }
  if (!own.success || host === undefined) throw new BadEnvironment(`gateway cannot start:\n${wrong.join('\n')}`);
  return {
    ...host,
    installation: own.data.CV_INSTALLATION,
    host: own.data.CV_GATEWAY_HOST,
    port: own.data.CV_PORT,
    adminTokenSha256: own.data.CV_GATEWAY_ADMIN_TOKEN_SHA256,
    natsKeys: own.data.CV_GATEWAY_NATS_KEYS,
    natsPublicUrls: (own.data.CV_GATEWAY_NATS_PUBLIC_URL ?? host.natsUrl).split(',').map((url) => url.trim()),
    consoleUrl: own.data.CV_GATEWAY_CONSOLE_URL,
    consoleOrigins: own.data.CV_GATEWAY_CONSOLE_ORIGINS.filter((one) => one !== ''),
    consoleIdleMs: own.data.CV_GATEWAY_CONSOLE_IDLE_MINUTES * 60_000,
    traced: tracingIsWanted(environment),
  };
};
