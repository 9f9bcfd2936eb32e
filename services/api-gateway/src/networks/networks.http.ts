import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Patch, Post, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { NetworkId } from '@chronovirt/contracts/ids';
import { CreateNetworkBody } from '@chronovirt/contracts/network/network.commands';
import { ChangeReservedBody } from '@chronovirt/contracts/subnet/subnet.commands';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { obeyed } from '../command.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { PageQuery, pageOf } from '../page.http.ts';
import { ProblemError } from '../problem.http.ts';
import { requestOf, sendJson, tagged } from '../request.http.ts';
import { Write } from '../write.http.ts';
import type { NetworkDocument, SubnetDocument } from './network.projection.ts';
import { networkShown, type NetworkShown } from './network-view.ts';

@ApiTags('networks')
@ApiBearerAuth()
@Controller('v1/networks')
export class NetworksHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Post()
  @Write()
  @HttpCode(201)
  @ApiOperation({ summary: 'Create a network', operationId: 'createNetwork' })
  @ApiResponse({ status: 201, description: 'The network', schema: { $ref: '#/components/schemas/Network' } })
  async create(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Body({ schema: CreateNetworkBody }) body: z.infer<typeof CreateNetworkBody>): Promise<void> {
    const asked = requestOf(request, body);
    const networkId = asked.ids.thing('network');
    const answer = await obeyed(this.gateway, reply, asked, { to: 'ipam', target: networkId, type: 'CreateNetwork', data: { networkId, ...body }, kind: 'create-network', stream: `network-${networkId}` });
    if (answer === undefined) return;
    const [network] = await this.shown([networkId]);
    tagged(reply, network?.version);
    sendJson(reply.code(201).header('location', `/v1/networks/${networkId}`), JSON.stringify(network ?? { id: networkId, networkId, ...body }));
  }

  @Get()
  @ApiOperation({ summary: 'Networks, and how much of each is used', operationId: 'listNetworks' })
  @ApiResponse({ status: 200, description: 'A page', schema: { $ref: '#/components/schemas/NetworkPage' } })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: PageQuery }) query: z.infer<typeof PageQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply);
    sendJson(reply, JSON.stringify(await pageOf(this.gateway.views, 'network', query, (networks: readonly NetworkDocument[]) => this.withUse(networks))));
  }

  @Get(':id')
  @ApiOperation({ summary: 'One network', operationId: 'getNetwork' })
  @ApiResponse({ status: 200, description: 'The network', schema: { $ref: '#/components/schemas/Network' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: NetworkId }) id: string): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    this.send(reply, await this.one(id));
  }

  @Patch(':id')
  @Write()
  @ApiOperation({ summary: 'Keep addresses from being leased, or give them free again', operationId: 'changeNetwork' })
  @ApiResponse({ status: 200, description: 'The network', schema: { $ref: '#/components/schemas/Network' } })
  async change(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: NetworkId }) id: NetworkId, @Body({ schema: ChangeReservedBody }) body: z.infer<typeof ChangeReservedBody>): Promise<void> {
    const asked = requestOf(request, body);
    const { subnetId } = await this.one(id);
    const answer = await obeyed(this.gateway, reply, asked, { to: 'ipam', target: subnetId, type: 'ChangeReserved', data: { subnetId, ...body }, kind: 'change-network', stream: `subnet-${subnetId}` });
    if (answer !== undefined) this.send(reply, await this.one(id));
  }

  @Delete(':id')
  @Write()
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete a network; refused while VMs use it, naming them', operationId: 'deleteNetwork' })
  async delete(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: NetworkId }) id: NetworkId): Promise<void> {
    const asked = requestOf(request, {});
    const answer = await obeyed(this.gateway, reply, asked, { to: 'ipam', target: id, type: 'DeleteNetwork', data: { networkId: id }, kind: 'delete-network', stream: `network-${id}` });
    if (answer !== undefined) void reply.code(204).send();
  }

  private send(reply: FastifyReply, network: NetworkShown): void {
    tagged(reply, network.version);
    sendJson(reply, JSON.stringify(network));
  }

  private async one(id: string): Promise<NetworkShown> {
    const [network] = await this.shown([id]);
    if (network === undefined) throw new ProblemError('network.not_found', { detail: 'There is no such network.', because: { networkId: id } });
    return network;
  }

  private async shown(ids: readonly string[]): Promise<readonly NetworkShown[]> {
    return this.withUse(await this.gateway.views.documents<NetworkDocument>('network', ids));
  }

  private async withUse(networks: readonly NetworkDocument[]): Promise<readonly NetworkShown[]> {
    const subnetIds = networks.map(({ subnetId }) => subnetId);
    const [subnets, uses] = await Promise.all([this.gateway.views.documents<SubnetDocument>('subnet', subnetIds), this.gateway.views.uses(subnetIds)]);
    const byId = new Map(subnets.map((subnet) => [subnet.id, subnet]));
    return networks.map((network) => networkShown(network, byId.get(network.subnetId), uses.get(network.subnetId)?.holdings ?? 0));
  }
}
