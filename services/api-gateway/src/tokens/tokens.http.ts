import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { randomBytes } from 'node:crypto';
import { TokenId } from '@chronovirt/contracts/ids';
import { IssueTokenBody } from '@chronovirt/contracts/token/token.commands';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { tokenFrom } from '../auth.ts';
import { sha256 } from '../auth.http.ts';
import { decided } from '../command.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { PageQuery, pageOf } from '../page.http.ts';
import { ProblemError } from '../problem.http.ts';
import { actorOf, requestOf, sendJson, tagged } from '../request.http.ts';
import { Write } from '../write.http.ts';
import { apiToken } from './token.ts';
import type { ApiTokenDocument } from './token.projection.ts';

const shown = ({ sha256: _, ...token }: ApiTokenDocument): Omit<ApiTokenDocument, 'sha256'> => token;

@ApiTags('tokens')
@ApiBearerAuth()
@Controller('v1/tokens')
export class TokensHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Post()
  @Write({ repeats: false })
  @HttpCode(201)
  @ApiOperation({ summary: 'Issue an API token; it is shown this once', operationId: 'issueToken' })
  @ApiResponse({ status: 201, description: 'The token', schema: { $ref: '#/components/schemas/IssuedToken' } })
  async issue(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Body({ schema: IssueTokenBody }) body: z.infer<typeof IssueTokenBody>): Promise<void> {
    const asked = requestOf(request, body);
    // A token cannot be shown a second time, so a repeated request could not be answered alike.
    if (asked.requestHash !== undefined) throw new ProblemError('idempotency.not_supported', { detail: 'A token is shown once, so issuing one takes no Idempotency-Key.' });
    const tokenId = asked.ids.thing('token');
    const token = tokenFrom(this.gateway.installation, randomBytes(32).toString('base64url'));
    const issued = await decided(this.gateway, reply, asked, apiToken, { stream: `token-${tokenId}`, command: { type: 'IssueApiToken', data: { tokenId, name: body.name, sha256: sha256(token) } } }, [tokenId]);
    if (issued === undefined) return;
    sendJson(reply.code(201).header('cache-control', 'no-store'), JSON.stringify({ id: tokenId, name: body.name, token }));
  }

  @Get()
  @ApiOperation({ summary: 'API tokens, without the tokens', operationId: 'listTokens' })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: PageQuery }) query: z.infer<typeof PageQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply);
    sendJson(reply, JSON.stringify(await pageOf(this.gateway.views, 'api_token', query, (tokens: readonly ApiTokenDocument[]) => tokens.map(shown))));
  }

  @Get('self')
  @ApiOperation({ summary: 'Whose token this is, and of which installation', operationId: 'getOwnToken' })
  self(@Req() request: FastifyRequest, @Res() reply: FastifyReply): void {
    sendJson(reply, JSON.stringify({ id: actorOf(request), installation: this.gateway.installation }));
  }

  @Get(':id')
  @ApiOperation({ summary: 'One API token, without the token', operationId: 'getToken' })
  @ApiResponse({ status: 200, description: 'What is known of it', schema: { $ref: '#/components/schemas/Token' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: TokenId }) id: string): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const token = await this.gateway.views.document<ApiTokenDocument>('api_token', id);
    if (token === undefined) throw new ProblemError('token.not_found', { detail: 'There is no such token.', because: { tokenId: id } });
    tagged(reply, token.version);
    sendJson(reply, JSON.stringify(shown(token)));
  }

  @Delete(':id')
  @Write()
  @HttpCode(204)
  @ApiOperation({ summary: 'Revoke a token', operationId: 'revokeToken' })
  async revoke(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: TokenId }) id: TokenId): Promise<void> {
    const asked = requestOf(request, {});
    const revoked = await decided(this.gateway, reply, asked, apiToken, { stream: `token-${id}`, command: { type: 'RevokeApiToken', data: { tokenId: id } } }, [id]);
    if (revoked === undefined) return;
    this.gateway.authentication.forget();
    void reply.code(204).send();
  }
}
