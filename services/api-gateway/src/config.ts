import { type HostConfig, readOwnConfig } from '@chronovirt/host/config';
import { tracingIsWanted } from '@chronovirt/observability/tracing';
import { z } from 'zod';

const origin = z.string().refine((value) => value === '' || (URL.canParse(value) && new URL(value).origin === value), 'must be origins such as https://desk.example, with commas between them');

const gib = z.coerce.number().int().min(1).max(1_048_576);

const Own = z.object({
  CV_INSTALLATION: z.string().regex(/^[0-9a-f]{8}$/, 'must be 8 hexadecimal digits'),
  CV_PORT: z.coerce.number().int().min(0).max(65_535).default(8_080),
  CV_GATEWAY_HOST: z.string().min(1).default('127.0.0.1'),
  CV_GATEWAY_ADMIN_TOKEN_SHA256: z.string().regex(/^[0-9a-f]{64}$/, 'must be a SHA-256 in hexadecimal').optional(),
  CV_GATEWAY_NATS_KEYS: z.string().min(1).optional(),
  CV_GATEWAY_NATS_PUBLIC_URL: z.string().min(1).optional(),
  CV_GATEWAY_IMAGE_DIR: z.string().regex(/^\//, 'must be an absolute path').optional(),
  CV_GATEWAY_IMAGE_MAX_GIB: gib.default(128),
  CV_GATEWAY_IMAGES_TOTAL_GIB: gib.default(1_024),
  CV_GATEWAY_UPLOADS_MAX: z.coerce.number().int().min(1).max(10_000).default(64),
  CV_GATEWAY_UPLOAD_HOURS: z.coerce.number().int().min(1).max(720).default(24),
  CV_GATEWAY_IMAGE_KEEP_SECONDS: z.coerce.number().int().min(1).max(2_592_000).default(3_600),
  CV_GATEWAY_IMPORT_NETWORKS: z.string().default('').transform((value) => value.split(',').map((one) => one.trim()).filter((one) => one !== '')).pipe(z.array(z.union([z.cidrv4(), z.cidrv6()], 'must be networks such as 10.20.0.0/16, with commas between them'))),
  CV_GATEWAY_CONSOLE_URL: z.url({ protocol: /^(ws|http)s?$/ }).optional(),
  CV_GATEWAY_CONSOLE_ORIGINS: z.string().default('').transform((value) => value.split(',').map((one) => one.trim())).pipe(z.array(origin)),
  CV_GATEWAY_CONSOLE_IDLE_MINUTES: z.coerce.number().int().min(1).max(10_080).default(60),
});

export interface ImageSettings {
  /** Where images are kept; replicas share it. undefined: images are files that somebody puts on the nodes, and no others. */
  readonly dir: string | undefined;
  /** Of one image, and of all of them with what is on its way. */
  readonly bytesMax: number;
  readonly totalBytesMax: number;
  /** Uploads and imports under way at once. */
  readonly uploadsMax: number;
  readonly uploadMs: number;
  /** How long bytes stay that no image is made of. */
  readonly keepMs: number;
  /** Networks (CIDR) that are not public and that images may be fetched from all the same. */
  readonly importNetworks: readonly string[];
}

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
  readonly images: ImageSettings;
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
  const { host, own } = readOwnConfig('gateway', environment, Own);
  return {
    ...host,
    installation: own.CV_INSTALLATION,
    host: own.CV_GATEWAY_HOST,
    port: own.CV_PORT,
    adminTokenSha256: own.CV_GATEWAY_ADMIN_TOKEN_SHA256,
    natsKeys: own.CV_GATEWAY_NATS_KEYS,
    natsPublicUrls: (own.CV_GATEWAY_NATS_PUBLIC_URL ?? host.natsUrl).split(',').map((url) => url.trim()),
    images: {
      dir: own.CV_GATEWAY_IMAGE_DIR, bytesMax: own.CV_GATEWAY_IMAGE_MAX_GIB * 2 ** 30, totalBytesMax: own.CV_GATEWAY_IMAGES_TOTAL_GIB * 2 ** 30,
      uploadsMax: own.CV_GATEWAY_UPLOADS_MAX, uploadMs: own.CV_GATEWAY_UPLOAD_HOURS * 3_600_000,
      keepMs: own.CV_GATEWAY_IMAGE_KEEP_SECONDS * 1_000, importNetworks: own.CV_GATEWAY_IMPORT_NETWORKS,
    },
    consoleUrl: own.CV_GATEWAY_CONSOLE_URL,
    consoleOrigins: own.CV_GATEWAY_CONSOLE_ORIGINS.filter((one) => one !== ''),
    consoleIdleMs: own.CV_GATEWAY_CONSOLE_IDLE_MINUTES * 60_000,
    traced: tracingIsWanted(environment),
  };
};
