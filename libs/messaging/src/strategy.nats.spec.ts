/* Nest's side, and one trace from the publisher through every delivery. */
import 'reflect-metadata';
import { AsyncLocalStorage } from 'node:async_hooks';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Ctx, Payload } from '@nestjs/microservices';
import type { MicroserviceOptions } from '@nestjs/microservices';
import { ROOT_CONTEXT, context, trace } from '@opentelemetry/api';
import type { Context, ContextManager, Span, SpanContext, Tracer } from '@opentelemetry/api';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import type { Bus } from './connect.ts';
import { Reject } from './consume.ts';
import type { Delivery, Settled } from './consume.ts';
import { ensureStreams } from './ensure-topology.ts';
import { createPublisher } from './publish.ts';
import { createReplies } from './replies.ts';
import { Consumes, JetStreamStrategy, KeepError } from './strategy.ts';
import type { DeliveryContext } from './strategy.ts';
import { busOfService, startTestingServer, until } from './testing-server.os.ts';
import type { TestingServer } from './testing-server.os.ts';
import { commandsOf, reportsFor } from './topology.ts';
import { jetstreamManager } from '@nats-io/jetstream';

// A tracer that remembers, against OpenTelemetry's API alone.
interface Remembered { readonly name: string; readonly traceId: string; readonly spanId: string; readonly parent: string | undefined; ended: boolean }
const spans: Remembered[] = [];
const hex = (length: number): string => Array.from({ length }, () => Math.floor(Math.random() * 16).toString(16)).join('');
const remembering = {
  startSpan: (name: string, _options: unknown, above: Context = context.active()) => {
    const parent: SpanContext | undefined = trace.getSpanContext(above);
    const here: SpanContext = { traceId: parent?.traceId ?? hex(32), spanId: hex(16), traceFlags: 1 };
    const remembered: Remembered = { name, traceId: here.traceId, spanId: here.spanId, parent: parent?.spanId, ended: false };
    spans.push(remembered);
    return { spanContext: () => here, end: () => { remembered.ended = true; }, recordException: () => undefined, setStatus: () => undefined } as unknown as Span;
  },
} as unknown as Tracer;
const storage = new AsyncLocalStorage<Context>();
const manager: ContextManager = {
  active: () => storage.getStore() ?? ROOT_CONTEXT,
  with: (active, work, self, ...args) => storage.run(active, () => work.apply(self as never, args)),
  bind: (_context, target) => target,
  enable: () => manager,
  disable: () => manager,
};

const handled: string[] = [];
let tries = 0;

@Controller()
class IpamConsumer {
  @Consumes(commandsOf('ipam'), { backOffsMs: [30], deliveriesMax: 4 })
  async obey(@Payload() delivery: Delivery, @Ctx() ctx: DeliveryContext): Promise<unknown> {
    const { type, id } = delivery.json() as CommandEnvelope;
    expect(ctx.delivery).toBe(delivery);
    handled.push(`${type} ${delivery.deliveryCount}`);
    await Promise.resolve();
    if (type === 'FailsTwice' && ++tries < 3) throw new Error('not yet');
    if (type === 'AlwaysFails') throw new TypeError('never');
    if (type === 'Malformed') throw new Reject('subnet is missing');
    return { version: 1, facts: { id } };
  }

  @Consumes(reportsFor('ipam', 'lease'))
  hear(@Payload() delivery: Delivery): void {
    handled.push(`report ${delivery.subject}`);
  }
}

@Module({ controllers: [IpamConsumer] })
class IpamModule {}

let server: TestingServer;
let bus: Bus;
const settled: Settled[] = [];
const strategies: JetStreamStrategy[] = [];

beforeAll(async () => {
  trace.setGlobalTracerProvider({ getTracer: () => remembering });
  context.setGlobalContextManager(manager);
  server = await startTestingServer();
  bus = await busOfService(server);
  await ensureStreams(bus.nc);
});
afterAll(async () => {
  await bus?.close();
  await server?.stop();
  trace.disable();
  context.disable();
});

let serial = 0;
const order = (type: string): CommandEnvelope => ({
  id: `00000000-0000-8000-8000-${String(++serial).padStart(12, '0')}`, to: 'ipam', target: `subnet_${serial}`, type, data: {}, meta: { actor: 'test' }, cancels: [],
});

describe('the strategy', () => {
  it('starts, handles, sets aside and stops as Nest is told to, in one trace', async () => {
    const strategy = new JetStreamStrategy({ bus, onSettled: (one) => settled.push(one) });
    strategies.push(strategy);
    const app = await NestFactory.createMicroservice<MicroserviceOptions>(IpamModule, { strategy, logger: false });
    app.useGlobalFilters(new KeepError());
    await app.listen();
    await until('it reads', () => strategy.statusOfConsumers().ok);

    const replies = createReplies({ nc: bus.nc, process: 'test' });
    const publisher = createPublisher({ bus });
    const commands = ['Works', 'FailsTwice', 'AlwaysFails', 'Malformed'].map(order);
    const answers = commands.slice(0, 2).map((one) => replies.expect(one.id, { timeoutMs: 5_000, to: one.to, target: one.target }));
    const root = remembering.startSpan('POST /v1/vms', {}, ROOT_CONTEXT);
    await context.with(trace.setSpan(ROOT_CONTEXT, root), () => Promise.all(commands.map((one) => publisher.publishCommand(one, { reply: replies.subjectFor(one.to, one.target) }))));
    expect(await Promise.all(answers)).toEqual(commands.slice(0, 2).map(({ id }) => ({ version: 1, facts: { id } })));

    const jsm = await jetstreamManager(bus.nc);
    await until('two are in DEAD', async () => (await jsm.streams.info('DEAD')).state.messages === 2);
    await until('the queue is empty', async () => (await jsm.streams.info('COMMANDS')).state.messages === 0);
    const reasons = await Promise.all([1, 2].map(async (seq) => (await jsm.streams.getMessage('DEAD', { seq }))?.header.get('Cv-Reason')));
    expect(reasons.sort()).toEqual(['never', 'subnet is missing']);
    expect(handled.sort()).toEqual(['AlwaysFails 1', 'AlwaysFails 2', 'AlwaysFails 3', 'AlwaysFails 4', 'FailsTwice 1', 'FailsTwice 2', 'FailsTwice 3', 'Malformed 1', 'Works 1']);

    // One trace: four publications under the call, nine deliveries under their publications.
    const { traceId, spanId } = root.spanContext();
    const published = spans.filter(({ name }) => name === 'publish command');
    const processed = spans.filter(({ name }) => name === 'process ipam-commands');
    expect(published).toHaveLength(4);
    expect(processed).toHaveLength(9);
    expect([...published, ...processed].every((span) => span.traceId === traceId)).toBe(true);
    expect(published.every(({ parent }) => parent === spanId)).toBe(true);
    expect(processed.every(({ parent }) => published.some((span) => span.spanId === parent))).toBe(true);
    expect([...published, ...processed].every(({ ended }) => ended)).toBe(true);

    await publisher.publishReport({ nodeId: 'node_1', category: 'lease', id: 'lease_1', type: 'Seen', body: {} });
    await until('the report', () => handled.includes('report cv.rpt.node_1.lease.lease_1'));
    await app.close();
    await publisher.publishCommand(order('Works'));
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect((await jsm.streams.info('COMMANDS')).state.messages).toBe(1);
    await until('outcomes were told', () => settled.filter(({ outcome }) => outcome === 'dead').length === 2);
    replies.close();
  });
});
