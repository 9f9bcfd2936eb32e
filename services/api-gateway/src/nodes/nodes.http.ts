import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Patch, Post, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { randomBytes } from 'node:crypto';
import { idFrom, NodeId, type TokenId } from '@chronovirt/contracts/ids';
import { ChangeNodeBody, JoinNodeBody } from '@chronovirt/contracts/node/node.commands';
import { IssueJoinTokenBody } from '@chronovirt/contracts/token/token.commands';
import { isRefusal } from '@chronovirt/decider/decider';
import { commandIdOf, newCommandId, requestHashOf } from '@chronovirt/event-log/command-id';
import type { CommandHandler } from '@chronovirt/event-log/handle';
import { rehearse } from '@chronovirt/event-log/rehearse';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { tokenFrom } from '../auth.ts';
import { sha256 } from '../auth.http.ts';
import { decided, noAnswer, obeyed } from '../command.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { PageQuery, pageOf } from '../page.http.ts';
import { ProblemError, refused } from '../problem.http.ts';
import { requestOf, sendJson, tagged, traceparentOfRequest } from '../request.http.ts';
import { Write, sendRehearsal } from '../write.http.ts';
import { envelopeOf, submit } from '../submit.ts';
import { joinToken } from '../tokens/token.ts';
import type { JoinTokenDocument } from '../tokens/token.projection.ts';
import type { NodeSummary } from './node-summary.projection.ts';
import { AdoptVmBody } from '@chronovirt/contracts/vm/vm.commands';
import { pendingOperation } from '../vms/requested-vm.ts';
import { nodeShown, type NodeShown } from './node-view.ts';

const RemoveQuery = z.strictObject({
  reason: z.string().min(1).max(300).default('removed by an operator'),
  force: z.enum(['true', 'false']).default('false').describe('Although there are VMs on it: it is lost, and what it held may be given to others'),
}).meta({ id: 'RemoveNodeQuery' });

@ApiTags('nodes')
@ApiBearerAuth()
@Controller('v1/nodes')
export class NodesHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Get()
  @ApiOperation({ summary: 'Nodes: what they are, what is promised of them, whether they are heard', operationId: 'listNodes' })
  @ApiResponse({ status: 200, description: 'A page', schema: { $ref: '#/components/schemas/NodePage' } })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: PageQuery }) query: z.infer<typeof PageQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply);
    sendJson(reply, JSON.stringify(await pageOf(this.gateway.views, 'node_summary', query, (nodes: readonly NodeSummary[]) => this.withUse(nodes), 'not removed')));
  }

  @Post('join-tokens')
  @Write({ repeats: false })
  @HttpCode(201)
  @ApiOperation({ summary: 'Issue a token that lets one machine join; it is shown this once', operationId: 'issueJoinToken' })
  @ApiResponse({ status: 201, description: 'The token', schema: { $ref: '#/components/schemas/IssuedJoinToken' } })
  async issueJoinToken(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Body({ schema: IssueJoinTokenBody }) body: z.infer<typeof IssueJoinTokenBody>): Promise<void> {
    const asked = requestOf(request, body);
    if (asked.requestHash !== undefined) throw new ProblemError('idempotency.not_supported', { detail: 'A token is shown once, so issuing one takes no Idempotency-Key.' });
    const tokenId = asked.ids.thing('token');
    const token = tokenFrom(this.gateway.installation, randomBytes(32).toString('base64url'));
    const expiresAt = new Date(this.gateway.now().getTime() + body.expiresInSeconds * 1_000).toISOString();
    const issued = await decided(this.gateway, reply, asked, joinToken, { stream: `join-token-${tokenId}`, command: { type: 'IssueJoinToken', data: { tokenId, sha256: sha256(token), expiresAt } } }, [tokenId]);
    if (issued === undefined) return;
    sendJson(reply.code(201).header('cache-control', 'no-store'), JSON.stringify({ id: tokenId, token, expiresAt }));
  }

  @Get('join-tokens')
  @ApiOperation({ summary: 'Join tokens, without the tokens', operationId: 'listJoinTokens' })
  async joinTokens(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: PageQuery }) query: z.infer<typeof PageQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply);
    sendJson(reply, JSON.stringify(await pageOf(this.gateway.views, 'join_token', query, (tokens: readonly JoinTokenDocument[]) => tokens.map(({ sha256: _, ...token }) => token))));
  }

  /*
   * The node's id follows from the join token, so an agent whose answer was lost asks again and becomes the
   * same node. The token is redeemed first: from then on it is this machine's alone, whatever comes after.
   */
  @Post('join')
  @Write({ repeats: false, access: 'join' })
  @ApiOperation({ summary: 'An agent joins with its join token', operationId: 'joinNode' })
  @ApiResponse({ status: 201, description: 'Its id, and what it needs on the bus', schema: { $ref: '#/components/schemas/JoinedNode' } })
  async join(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Body({ schema: JoinNodeBody }) body: z.infer<typeof JoinNodeBody>): Promise<void> {
    const { credentials, authentication, views, handler, events, ports, reading } = this.gateway;
    if (credentials === undefined) throw new ProblemError('gateway.unavailable', { detail: 'This gateway has no signing keys for agents (CV_GATEWAY_NATS_KEYS).' });
    const found = await views.joinToken(authentication.joinTokenOf(request));
    if (found === undefined) throw new ProblemError('auth.token_unknown', { detail: 'No such join token was issued here.' });
    const tokenId = found as TokenId;
    const nodeId = idFrom('node', commandIdOf(`${tokenId}:node`));
    const traceparent = traceparentOfRequest(request);
    const meta = { actor: tokenId, nodeId, traceparent };

    // Each asking is a command of its own: the time is part of it, and an expired token must not stay refused for another machine's sake.
    const at = this.gateway.now().toISOString();
    const redeem = async (by: CommandHandler) => (await by.handle(joinToken, {
      id: commandIdOf(`${tokenId}:redeem:${body.machineId}:${at}`), stream: `join-token-${tokenId}`, cancels: [], meta,
      command: { type: 'RedeemJoinToken', data: { tokenId, nodeId, machineId: body.machineId, at } },
    })).answer;
    const dryRun = request.cv?.dryRun === true;
    const redeemed = await (dryRun ? rehearse(events, redeem) : redeem(handler));
    if (isRefusal(redeemed)) throw refused(redeemed);

    const commandId = commandIdOf(`${tokenId}:register:${requestHashOf(body)}`);
    const envelope = envelopeOf({ commandId, operationId: idFrom('op', commandId), actor: tokenId, requestHash: undefined, traceparent, rehearsalId: dryRun ? newCommandId() : undefined, expected: request.cv?.expected }, { to: 'scheduler', target: nodeId, type: 'RegisterNode', data: { nodeId, ...body } });
    const outcome = await submit(ports, envelope, undefined);
    if (outcome.kind === 'refused') throw refused(outcome.refusal);
    // Nothing is recorded as owed: the agent itself asks again until it has joined.
    if (outcome.kind === 'pending') throw noAnswer();
    if (dryRun) {
      const { answer } = outcome;
      sendRehearsal(reply, { ...answer, rehearsal: { events: [...(redeemed.rehearsal?.events ?? []), ...(answer.rehearsal?.events ?? [])] } });
      return;
    }
    await reading.wrote(reply, `node-${nodeId}`, outcome.answer, [nodeId]);
    await reading.own(nodeId);
    const node = await views.document<NodeSummary>('node_summary', nodeId);
    if (node !== undefined && node.removed !== null) throw new ProblemError('node.removed', { because: { nodeId }, detail: 'This node was removed; join with a new token.' });
    // Only the key that is recorded may get credentials: it is the one that removing the node revokes.
    if (node !== undefined && node.credentialKey !== body.credentialKey) {
      throw new ProblemError('node.other_key', { because: { nodeId }, detail: 'This node joined with another key. Keep the agent\'s state folder, or remove the node and join with a new token.' });
    }
    const natsJwt = await credentials.mint(nodeId, body.credentialKey);
    sendJson(reply.code(201).header('cache-control', 'no-store'), JSON.stringify({ nodeId, natsJwt, natsUrls: this.gateway.natsUrls }));
  }

  @Get(':id')
  @ApiOperation({ summary: 'One node', operationId: 'getNode' })
  @ApiResponse({ status: 200, description: 'The node', schema: { $ref: '#/components/schemas/Node' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: NodeId }) id: string): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    this.send(reply, await this.one(id));
  }

  @Patch(':id')
  @Write()
  @ApiOperation({ summary: 'Accept new VMs or not, maintenance, limits', operationId: 'changeNode' })
  @ApiResponse({ status: 200, description: 'The node', schema: { $ref: '#/components/schemas/Node' } })
  async change(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: NodeId }) id: NodeId, @Body({ schema: ChangeNodeBody }) body: z.infer<typeof ChangeNodeBody>): Promise<void> {
    const asked = requestOf(request, body);
    const answer = await obeyed(this.gateway, reply, asked, { to: 'scheduler', target: id, type: 'ChangeNode', data: { nodeId: id, ...body }, kind: 'change-node', stream: `node-${id}` });
    if (answer !== undefined) this.send(reply, await this.one(id));
  }

  @Delete(':id')
  @Write()
  @HttpCode(204)
  @ApiOperation({ summary: 'This machine is gone for good: its credentials are revoked, what it held may be given to others. Refused while there are VMs on it, naming them, unless forced', operationId: 'removeNode' })
  async remove(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: NodeId }) id: NodeId, @Query({ schema: RemoveQuery }) query: z.infer<typeof RemoveQuery>): Promise<void> {
    const asked = requestOf(request, query);
    const answer = await obeyed(this.gateway, reply, asked, { to: 'scheduler', target: id, type: 'RemoveNode', data: { nodeId: id, reason: query.reason, force: query.force === 'true' }, kind: 'remove-node', stream: `node-${id}` });
    if (answer === undefined) return;
    const node = await this.gateway.views.document<NodeSummary>('node_summary', id);
    // Whoever leads does it again: removing a node must not fail because the bus is away for a moment.
    await this.gateway.credentials?.revoke(node?.credentialKeys ?? []).catch((err: unknown) => { this.gateway.log.warn({ err, nodeId: id }, 'revocation put off'); });
    void reply.code(204).send();
  }

  @Post(':id/foreign/:uuid/adopt')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Make a VM of a domain that somebody else made on the node, as it is and while it runs. GET /v1/drift?class=foreign lists them, with what stands in the way', operationId: 'adoptVm' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation, and the id of the VM' })
  async adopt(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: NodeId }) nodeId: NodeId, @Param('uuid', { schema: z.guid() }) uuid: string, @Body({ schema: AdoptVmBody }) body: z.infer<typeof AdoptVmBody>): Promise<void> {
    const asked = requestOf(request, body);
    const { operationId, commandId, actor } = asked;
    // A VM's id and its domain's UUID are the same digits.
    const vmId = idFrom('vm', uuid);
    const answer = await obeyed(this.gateway, reply, asked, { to: 'scheduler', target: vmId, type: 'AdoptVm', data: { vmId, operationId, nodeId, uuid, ...body }, kind: 'adopt', stream: `vm-${vmId}` });
    if (answer === undefined) return;
    await this.gateway.reading.own(operationId);
    sendJson(reply.code(202).header('location', `/v1/operations/${operationId}`), JSON.stringify({ operation: pendingOperation({ id: operationId, kind: 'adopt', vmId, commandId, actor }), vmId }));
  }

  private send(reply: FastifyReply, node: NodeShown): void {
    tagged(reply, node.version);
    sendJson(reply, JSON.stringify(node));
  }

  private async one(id: string): Promise<NodeShown> {
    const node = await this.gateway.views.document<NodeSummary>('node_summary', id);
    if (node === undefined || node.removed !== null) throw new ProblemError('node.not_found', { detail: 'There is no such node.', because: { nodeId: id } });
    const [shown] = await this.withUse([node]);
    if (shown === undefined) throw new Error('a node was lost on its way');
    return shown;
  }

  private async withUse(nodes: readonly NodeSummary[]): Promise<readonly NodeShown[]> {
    const uses = await this.gateway.views.uses(nodes.map(({ id }) => id));
    return nodes.map((node) => nodeShown(node, uses.get(node.id)));
  }
}
