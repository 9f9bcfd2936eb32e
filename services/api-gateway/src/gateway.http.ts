/*
 * The HTTP side: Nest on Fastify, with what every request passes through.
 *
 *   onRequest   context, trace, security headers, then authentication, before any body is read
 *               then dryRun and If-Match of a write
 *   handler     parse (SchemaPipe), submit or read, send
 *   filter      whatever went wrong, as a problem
 *   onResponse  the histogram, by route pattern and never by path
 *
 * There are no interceptors: they cost a tenth of a quick read and would show nothing that the hooks do not.
 */
import 'reflect-metadata';
import { Module, type DynamicModule } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { context } from '@opentelemetry/api';
import { startSpan } from '@chronovirt/observability/tracing';
import type { FastifyHttpOptions, FastifyReply, FastifyRequest } from 'fastify';
import type { Server } from 'node:http';
import { BackupPoliciesHttp } from './backups/backup-policies.http.ts';
import { BackupsHttp } from './backups/backups.http.ts';
import { BootJobsHttp, BootRunsHttp } from './boot-jobs/boot-jobs.http.ts';
import { NodeBytesHttp } from './bytes/node-bytes.http.ts';
import { isForConsoles } from './console/console-relay.http.ts';
import { ConsolesHttp } from './console/consoles.http.ts';
import { GATEWAY, type Gateway } from './gateway.ts';
import { HealthHttp } from './health/health.http.ts';
import { EventsHttp } from './history/events.http.ts';
import { ImagesHttp } from './images/images.http.ts';
import { UploadsHttp } from './images/uploads.http.ts';
import { gatewayMetrics } from './metrics.ts';
import { NetworksHttp } from './networks/networks.http.ts';
import { NodeCredentialsHttp } from './nodes/node-credentials.http.ts';
import { NodesHttp } from './nodes/nodes.http.ts';
import { openApiText } from './openapi.http.ts';
import { OperationsHttp } from './operations/operations.http.ts';
import { PoolsHttp } from './pools/pools.http.ts';
import { DriftHttp } from './drift/drift.http.ts';
import { VolumesHttp } from './volumes/volumes.http.ts';
import { ProblemError, ProblemFilter, SchemaPipe } from './problem.http.ts';
import { readGuards, traceparentOfRequest } from './request.http.ts';
import { SshKeysHttp } from './ssh-keys/ssh-keys.http.ts';
import { TokensHttp } from './tokens/tokens.http.ts';
import { VmsHttp } from './vms/vms.http.ts';

const BODY_MAX_BYTES = 1_048_576;
/** A request that takes longer than this to arrive is cut off; uploads are not, whose bytes are waited for one by one. */
const REQUEST_WITHIN_MS = 30_000;
const HEADERS_WITHIN_MS = 10_000;
const KEEP_ALIVE_MS = 72_000;

// What names more of a path comes before what names less.
const controllers = [HealthHttp, EventsHttp, ConsolesHttp, VmsHttp, OperationsHttp, NodesHttp, NetworksHttp, UploadsHttp, ImagesHttp, NodeBytesHttp, NodeCredentialsHttp, PoolsHttp, VolumesHttp, DriftHttp, BackupsHttp, BackupPoliciesHttp, SshKeysHttp, BootJobsHttp, BootRunsHttp, TokensHttp];

@Module({})
class GatewayModule {
  static with(gateway: Gateway): DynamicModule {
    return { module: GatewayModule, controllers, providers: [{ provide: GATEWAY, useValue: gateway }] };
  }
}

/** What fails before a handler (a body that cannot be parsed) goes to the filter as Fastify says it; Nest's own way drops the code. */
class ProblemAdapter extends FastifyAdapter {
  private readonly filter: ProblemFilter;

  constructor(filter: ProblemFilter, options: FastifyHttpOptions<Server>) {
    super(options);
    this.filter = filter;
  }

  override setErrorHandler(): ReturnType<FastifyAdapter['setErrorHandler']> {
    return this.instance.setErrorHandler((fault: unknown, request: FastifyRequest, reply: FastifyReply) => { this.filter.answer(fault, request, reply); });
  }
}

const securityHeaders: Readonly<Record<string, string>> = {
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
};

/** Ready to listen. */
export const createGateway = async (gateway: Gateway, options: { readonly traced: boolean }): Promise<NestFastifyApplication> => {
  const metrics = gatewayMetrics(gateway.metrics);
  const routes = routeTable();
  const filter = new ProblemFilter({ log: gateway.log, counter: metrics.problems, methodsOf: routes.methodsOf });
  const adapter = new ProblemAdapter(filter, {
    bodyLimit: BODY_MAX_BYTES, requestTimeout: 0, keepAliveTimeout: KEEP_ALIVE_MS, logger: false, trustProxy: false,
    return503OnClosing: true, forceCloseConnections: true, exposeHeadRoutes: true,
    routerOptions: { maxParamLength: 201 },
    http: { headersTimeout: HEADERS_WITHIN_MS, maxHeaderSize: 16_384, shouldUpgradeCallback: isForConsoles },
    // Paths that cannot be decoded never come to a route or a hook.
    frameworkErrors: (fault, request, reply) => { filter.answer(fault, request, reply); },
  });
  const app = await NestFactory.create<NestFastifyApplication>(GatewayModule.with(gateway), adapter, { logger: false, bodyParser: false, abortOnError: false });
  app.useGlobalPipes(new SchemaPipe());
  app.useGlobalFilters(filter);

  const instance = adapter.getInstance();
  instance.removeContentTypeParser(['text/plain', 'application/json']);
  const parseJson = instance.getDefaultJsonParser('error', 'error');
  instance.addContentTypeParser<string>('application/json', { parseAs: 'string' }, (request, text, done) => {
    // Many clients say "JSON" with every request, also with a DELETE that has no body.
    if (text.length === 0 && request.method === 'DELETE') done(null, undefined);
    else void parseJson(request, text, done);
  });
  instance.addContentTypeParser('application/offset+octet-stream', (_request, payload, done) => { done(null, payload); });
  instance.decorateRequest('cv', undefined);
  instance.addHook('onRoute', ({ method, url }) => { routes.add(method, url); });

  instance.addHook('onRequest', (request, reply, done) => {
    metrics.inFlight.inc();
    reply.headers(securityHeaders);
    const span = options.traced ? startSpan(`${request.method} ${request.routeOptions.url ?? 'no route'}`, { kind: 'server', parent: traceparentOfRequest(request) }) : undefined;
    request.cv = { actor: undefined, span, startedAt: performance.now(), dryRun: false, expected: undefined };
    if (span === undefined) done();
    else context.with(span.context, done);
  });
  instance.addHook('onRequest', (request, reply, done) => {
    // Nobody needs a token to learn that a path does not exist, or to join with a join token.
    if (request.is404 || request.routeOptions.config.cvAccess !== undefined) {
      done();
      return;
    }
    const admit = (actor: string): void => {
      if (request.cv !== undefined) request.cv.actor = actor;
      done();
    };
    const refuse = (fault: unknown): void => { filter.answer(fault, request, reply); };
    try {
      const principal = gateway.authentication.principalOf(request);
      if (typeof principal === 'string') admit(principal);
      else principal.then(admit, refuse);
    } catch (fault) {
      refuse(fault);
    }
  });
  instance.addHook('onRequest', (request, reply, done) => {
    if (request.routeOptions.config.cvStream !== true && hasBody(request)) {
      const late = setTimeout(() => { filter.answer(new ProblemError('request.timeout', { headers: { connection: 'close' } }), request, reply); }, REQUEST_WITHIN_MS);
      late.unref();
      const there = (): void => { clearTimeout(late); };
      request.raw.once('end', there).once('close', there);
    }
    done();
  });
  instance.addHook('onRequest', (request, reply, done) => {
    try {
      if (!request.is404) readGuards(request);
      done();
    } catch (fault) {
      filter.answer(fault, request, reply);
    }
  });
  // Finding a histogram by its labels costs more than adding to it; there are only so many of them.
  const observers = new Map<string, { observe(seconds: number): void }>();
  const secondsOf = (method: string, route: string, status: number): { observe(seconds: number): void } => {
    const key = `${method} ${route} ${String(status)}`;
    const known = observers.get(key) ?? metrics.requestSeconds.labels({ method, route, status: String(status) });
    observers.set(key, known);
    return known;
  };
  const finished = (request: FastifyRequest, reply: FastifyReply): void => {
    metrics.inFlight.dec();
    const startedAt = request.cv?.startedAt;
    if (startedAt === undefined) return;
    const route = request.is404 ? 'none' : (request.routeOptions.url ?? 'none');
    secondsOf(request.method, route, reply.statusCode).observe((performance.now() - startedAt) / 1_000);
    request.cv?.span?.end(reply.statusCode >= 500 ? new Error(`status ${String(reply.statusCode)}`) : undefined);
  };
  instance.addHook('onResponse', (request, reply, done) => {
    finished(request, reply);
    done();
  });

  // The document is made when it is first asked for: not every process is, and it takes tens of milliseconds.
  let document: string | undefined;
  instance.get('/v1/openapi.json', { config: { cvAccess: 'public' } }, async (_request, reply) => {
    document ??= openApiText(app, controllers, gateway.installation);
    return reply.header('content-type', 'application/json; charset=utf-8').send(document);
  });

  await app.init();
  await instance.ready();
  return app;
};

const hasBody = ({ headers }: FastifyRequest): boolean => headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0';

/** Which methods each path takes, for 405: the router itself only says that a method and a path together are none of its own. */
const routeTable = () => {
  const patterns: { readonly path: RegExp; readonly method: string }[] = [];
  return {
    add: (method: string | readonly string[], url: string): void => {
      const path = new RegExp(`^${url.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&').replaceAll(/:[A-Za-z]+/g, '[^/]+')}/?$`);
      for (const one of typeof method === 'string' ? [method] : method) patterns.push({ path, method: one });
    },
    methodsOf: (path: string): readonly string[] => [...new Set(patterns.filter((pattern) => pattern.path.test(path)).map(({ method }) => method))],
  };
};
