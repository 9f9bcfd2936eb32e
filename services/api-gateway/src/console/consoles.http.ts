import { randomBytes } from 'node:crypto';
import { Body, Controller, Get, HttpCode, Inject, Param, Post, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { OpenConsoleBody } from '@chronovirt/contracts/console/console.commands';
import { VmId, type NodeId } from '@chronovirt/contracts/ids';
import { refuse } from '@chronovirt/decider/decider';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { sha256 } from '../auth.http.ts';
import { refusedWith } from '../command.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { malformed, ProblemError, refused } from '../problem.http.ts';
import { actorOf, sendJson } from '../request.http.ts';
import { sendRehearsal, Write } from '../write.http.ts';
import { vmToLookAt } from './vm-to-look-at.ts';

/** From being issued to being used. */
const TOKEN_SECONDS = 60;

@ApiTags('consoles')
@ApiBearerAuth()
@Controller('v1/vms/:id')
export class ConsolesHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Post('console')
  @Write({ repeats: false })
  @HttpCode(201)
  @ApiOperation({
    summary: 'Ask for a console', operationId: 'openConsole',
    description: 'Connect a WebSocket to `url` within a minute, once, with the subprotocols `chronovirt.console` (or `binary`) and `cv-token.<token>`, or with `?token=`. `vnc` is RFB (RFC 6143), for noVNC for example; `serial` is what the guest writes and what is typed, and begins with the last 64 KiB. The reason of its close is a code.',
  })
  @ApiResponse({ status: 201, description: 'Where it is, and what lets one in, once', schema: { $ref: '#/components/schemas/ConsoleOffer' } })
  async issue(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: OpenConsoleBody }) { kind }: z.infer<typeof OpenConsoleBody>): Promise<void> {
    // A token cannot be shown a second time, so a repeated request could not be answered alike.
    if (request.headers['idempotency-key'] !== undefined) throw new ProblemError('idempotency.not_supported', { detail: 'A token is shown once, so asking for a console takes no Idempotency-Key.' });
    await this.gateway.reading.atLeast(request, reply, id);
    await this.nodeOf(id);
    const { dryRun = false, expected } = request.cv ?? {};
    const version = (await this.gateway.views.vm(id))?.version ?? 0;
    if (expected !== undefined && expected !== version) throw await refusedWith(this.gateway, refuse('precondition.failed', { expected, version, since: [] }), `vm-${id}`);
    if (dryRun) {
      // What is recorded is recorded when somebody comes with the token.
      sendRehearsal(reply, { version });
      return;
    }
    const url = this.gateway.consoleUrl(request.headers.host);
    if (url === undefined) throw malformed([{ path: 'header.Host', code: 'invalid', message: 'must be a host, with or without a port' }]);
    const token = randomBytes(32).toString('base64url');
    const expiresAt = await this.gateway.consoles.issue(sha256(token), { vmId: id, kind, actor: actorOf(request) }, TOKEN_SECONDS);
    sendJson(reply.code(201), JSON.stringify({ url, token, expiresAt }));
  }

  @Get('screenshot')
  @ApiOperation({ summary: 'A picture of the screen', operationId: 'getScreenshot' })
  @ApiResponse({ status: 200, description: 'A PNG', content: { 'image/png': { schema: { type: 'string', format: 'binary' } } } })
  async screenshot(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const nodeId = await this.nodeOf(id);
    void reply.header('content-type', 'image/png').send(await this.gateway.askNode(nodeId, { vmId: id, kind: 'screenshot' }));
  }

  private async nodeOf(id: VmId): Promise<NodeId> {
    const nodeId = vmToLookAt(id, (await this.gateway.views.vm(id))?.text);
    if (typeof nodeId !== 'string') throw refused(nodeId);
    return nodeId;
  }
}
