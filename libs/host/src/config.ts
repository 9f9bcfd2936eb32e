import { z } from 'zod';

/** What every service process is told by its environment. `prefix` is the service in capitals: CV_SCHEDULER_…. */
export const hostConfig = (prefix: string) =>
  z.object({
    [`CV_${prefix}_POSTGRES_URL`]: z.url(),
    CV_NATS_URL: z.string().min(1),
    CV_NATS_CREDS: z.string().min(1),
    [`CV_${prefix}_HEALTH_PORT`]: z.coerce.number().int().min(0).max(65_535).optional(),
    [`CV_${prefix}_HEALTH_HOST`]: z.string().default('127.0.0.1'),
    CV_LOG_LEVEL: z.enum(['debug', 'info', 'warn', 'error']).default('info'),
    CV_WAYPOINTS: z.string().startsWith('/', 'must be an absolute path').optional(),
    CV_TEST: z.string().optional(),
  }).refine(({ CV_WAYPOINTS, CV_TEST }) => CV_WAYPOINTS === undefined || CV_TEST === '1', { path: ['CV_WAYPOINTS'], message: 'is for tests, which say CV_TEST=1' });

export interface HostConfig {
  readonly postgresUrl: string;
  readonly natsUrl: string;
  /** Path of the creds file of the service's user. */
  readonly natsCreds: string;
  /** undefined: no health server of its own, because it shares another's. */
  readonly healthPort: number | undefined;
  readonly healthHost: string;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
  /** Tests only: the folder of libs/observability/src/waypoints.ts. */
  readonly waypoints?: string | undefined;
}

export class BadEnvironment extends Error {
  override readonly name = 'BadEnvironment';
}

type Environment = Readonly<Record<string, string | undefined>>;

const complaint = (environment: Environment, { issues }: z.ZodError): string =>
  issues.map(({ path, message }) => `  ${path.join('.')}: ${environment[String(path[0])] === undefined ? 'is not set' : message}`).join('\n');

/** The same, with what a service is told beside. Throws BadEnvironment with everything that is wrong in either. */
export const readOwnConfig = <T>(service: string, environment: Environment, own: z.ZodType<T>): { readonly host: HostConfig; readonly own: T } => {
  const read = own.safeParse(environment);
  const wrong = read.success ? [] : [complaint(environment, read.error)];
  let host: HostConfig | undefined;
  try {
    host = readHostConfig(service, environment);
  } catch (error) {
    if (!(error instanceof BadEnvironment)) throw error;
    wrong.unshift(...error.message.split('\n').slice(1));
  }
  if (!read.success || host === undefined) throw new BadEnvironment(`${service} cannot start:\n${wrong.join('\n')}`);
  return { host, own: read.data };
};

/** Reads the environment once. Throws BadEnvironment with everything that is wrong, by name. */
export const readHostConfig = (service: string, environment: Environment): HostConfig => {
  const prefix = service.toUpperCase().replaceAll('-', '_');
  const read = hostConfig(prefix).safeParse(environment);
  if (!read.success) {
    throw new BadEnvironment(`${service} cannot start:\n${complaint(environment, read.error)}`);
  }
  const values = read.data as Readonly<Record<string, unknown>>;
  return {
    postgresUrl: values[`CV_${prefix}_POSTGRES_URL`] as string,
    natsUrl: read.data.CV_NATS_URL as string,
    natsCreds: read.data.CV_NATS_CREDS as string,
    healthPort: values[`CV_${prefix}_HEALTH_PORT`] as number | undefined,
    healthHost: values[`CV_${prefix}_HEALTH_HOST`] as string,
    logLevel: read.data.CV_LOG_LEVEL as HostConfig['logLevel'],
    waypoints: read.data.CV_WAYPOINTS as string | undefined,
  };
};
