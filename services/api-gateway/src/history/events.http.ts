import { Controller, Get, Inject, Param, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { VmId } from '@chronovirt/contracts/ids';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { z } from 'zod';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { malformed, ProblemError } from '../problem.http.ts';
import { sendJson } from '../request.http.ts';
import { type EventView, viewOf } from './event-view.ts';

const Position = z.coerce.number().int().min(0).max(Number.MAX_SAFE_INTEGER);

const EventsQuery = z.strictObject({
  after: Position.optional().describe('Position; events behind it. Live without it: from now on'),
  limit: z.coerce.number().int().min(1).max(1_000).default(100),
  category: z.string().regex(/^[a-z-]{1,60}$/).optional().describe('vm, node, saga-provision-vm, …'),
  vm: VmId.optional().describe('Only what concerns this VM'),
}).meta({ id: 'EventsQuery' });

const HistoryQuery = z.strictObject({ after: Position.default(0), limit: z.coerce.number().int().min(1).max(1_000).default(100) }).meta({ id: 'HistoryQuery' });

const HEARTBEAT_MS = 15_000;

@ApiTags('history')
@ApiBearerAuth()
@Controller('v1')
export class EventsHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Get('events')
  @ApiOperation({ summary: 'The log: pages, or live with Accept: text/event-stream', operationId: 'listEvents', description: 'A live stream sends each event with its position as id; Last-Event-ID goes on behind it.' })
  @ApiResponse({ status: 200, description: 'A page: `next` is the position to go on behind', schema: { $ref: '#/components/schemas/EventPage' } })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: EventsQuery }) query: z.infer<typeof EventsQuery>): Promise<void> {
    const filter = { category: query.category, vm: query.vm };
    if (request.headers.accept?.includes('text/event-stream') === true) {
      await this.stream(request, reply, query.after, filter);
      return;
    }
    const page = await this.gateway.feed.page(query.after ?? 0, query.limit, filter);
    void reply.header('cv-position', String(page.head));
    sendJson(reply, JSON.stringify({ items: page.items.map(viewOf), next: page.next, head: page.head }));
  }

  private async stream(request: FastifyRequest, reply: FastifyReply, after: number | undefined, filter: { readonly category: string | undefined; readonly vm: string | undefined }): Promise<void> {
    const last = request.headers['last-event-id'];
    if (last !== undefined && (typeof last !== 'string' || !/^\d{1,15}$/.test(last))) throw malformed([{ path: 'header.Last-Event-ID', code: 'invalid', message: 'must be a position: a whole number' }]);
    const from = last !== undefined ? Number(last) : (after ?? (await this.gateway.feed.head()));
    const response = reply.raw;
    const sink = { write: (events: readonly RecordedEvent[]) => written(response, events.map(frameOf).join('')) };
    // The subscription's first batch comes in a later turn, when the headers are out.
    const feeding = this.gateway.feed.follow(from, filter, sink, () => { response.end(); });
    if (feeding === undefined) throw new ProblemError('gateway.too_many_listeners', { detail: 'Too many follow the log here already.', headers: { 'retry-after': '10' } });
    reply.hijack();
    // Headers that hooks have set live in the reply, which is out of the way from here on.
    response.writeHead(200, { ...(reply.getHeaders() as Record<string, string>), 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store', 'x-accel-buffering': 'no' });
    response.write(`retry: 1000\n: following behind ${String(from)}\n\n`);
    const heartbeat = setInterval(() => {
      // One that is not reading gets none: it has enough waiting.
      if (!response.writableNeedDrain) response.write(':\n\n');
    }, HEARTBEAT_MS);
    response.once('close', () => {
      clearInterval(heartbeat);
      feeding.stop();
    });
  }

  @Get('vms/:id/history')
  @ApiOperation({ summary: 'Everything that ever concerned a VM, deleted ones included', operationId: 'vmHistory' })
  @ApiResponse({ status: 200, description: 'A page: who, what, when, by which command, under which operation and trace, and both clocks', schema: { $ref: '#/components/schemas/EventPage' } })
  async history(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: string, @Query({ schema: HistoryQuery }) query: z.infer<typeof HistoryQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const positions = await this.gateway.views.history(id, query.after, query.limit);
    if (positions.length === 0 && query.after === 0) throw new ProblemError('vm.not_found', { because: { vmId: id } });
    const items = await this.gateway.feed.at(positions.slice(0, query.limit));
    const last = items[items.length - 1];
    sendJson(reply, JSON.stringify({ items: items.map(viewOf), next: positions.length > query.limit && last !== undefined ? last.position : null }));
  }
}

const frameOf = (event: RecordedEvent): string => {
  const view: EventView = viewOf(event);
  // JSON has no line breaks, so each event is one `data` line.
  return `id: ${String(event.position)}\nevent: ${event.type}\ndata: ${JSON.stringify(view)}\n\n`;
};

const written = async (response: ServerResponse, text: string): Promise<void> => {
  if (response.destroyed || response.writableEnded) throw new Error('whoever listened is gone');
  if (response.write(text)) return;
  const gone = new AbortController();
  try {
    await Promise.race([once(response, 'drain', { signal: gone.signal }), once(response, 'close', { signal: gone.signal }).then(() => { throw new Error('whoever listened is gone'); })]);
  } finally {
    gone.abort();
  }
};
