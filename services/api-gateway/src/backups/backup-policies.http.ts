import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Put, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { BackupPolicyBody } from '@chronovirt/contracts/backup-policy/backup-policy.commands';
import type { BackupPolicyWish } from '@chronovirt/contracts/backup-policy/backup-policy.events';
import { BackupPolicyId } from '@chronovirt/contracts/ids';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { obeyed } from '../command.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { PageQuery, pageOf } from '../page.http.ts';
import { ProblemError } from '../problem.http.ts';
import { requestOf, sendJson, tagged } from '../request.http.ts';
import { Write } from '../write.http.ts';
import { shownPolicy, type BackupPolicyDocument } from './backup-policy.projection.ts';

@ApiTags('backups')
@ApiBearerAuth()
@Controller('v1/backup-policies')
export class BackupPoliciesHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Get()
  @ApiOperation({ summary: 'When VMs are backed up by themselves, and what is kept', operationId: 'listBackupPolicies' })
  @ApiResponse({ status: 200, description: 'A page', schema: { $ref: '#/components/schemas/BackupPolicyPage' } })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: PageQuery }) query: z.infer<typeof PageQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply);
    sendJson(reply, JSON.stringify(await pageOf(this.gateway.views, 'backup_policy', query, (policies: readonly BackupPolicyDocument[]) => policies.map((policy) => shownPolicy(policy, this.gateway.now())))));
  }

  @Get(':id')
  @ApiOperation({ summary: 'One policy', operationId: 'getBackupPolicy' })
  @ApiResponse({ status: 200, description: 'The policy', schema: { $ref: '#/components/schemas/BackupPolicy' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: BackupPolicyId }) id: BackupPolicyId): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    await this.send(reply, id);
  }

  @Post()
  @Write()
  @HttpCode(201)
  @ApiOperation({ summary: 'Have VMs backed up every so many hours or each day at a time; a time that was missed is made up for once', operationId: 'makeBackupPolicy' })
  @ApiResponse({ status: 201, description: 'The policy', schema: { $ref: '#/components/schemas/BackupPolicy' } })
  async make(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Body({ schema: BackupPolicyBody }) body: BackupPolicyWish): Promise<void> {
    const asked = requestOf(request, body);
    const policyId = asked.ids.thing('policy');
    const answer = await obeyed(this.gateway, reply, asked, { to: 'storage', target: policyId, type: 'MakeBackupPolicy', data: { policyId, ...body }, kind: 'make-backup-policy', stream: `backup-policy-${policyId}` });
    if (answer === undefined) return;
    void reply.code(201).header('location', `/v1/backup-policies/${policyId}`);
    await this.send(reply, policyId);
  }

  @Put(':id')
  @Write()
  @ApiOperation({ summary: 'Change a policy; backups that were made because of it stay under it', operationId: 'changeBackupPolicy' })
  @ApiResponse({ status: 200, description: 'The policy', schema: { $ref: '#/components/schemas/BackupPolicy' } })
  async change(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: BackupPolicyId }) id: BackupPolicyId, @Body({ schema: BackupPolicyBody }) body: BackupPolicyWish): Promise<void> {
    const asked = requestOf(request, body);
    const answer = await obeyed(this.gateway, reply, asked, { to: 'storage', target: id, type: 'ChangeBackupPolicy', data: { policyId: id, ...body }, kind: 'change-backup-policy', stream: `backup-policy-${id}` });
    if (answer !== undefined) await this.send(reply, id);
  }

  @Delete(':id')
  @Write()
  @HttpCode(204)
  @ApiOperation({ summary: 'End a policy; the backups that it made stay until somebody deletes them', operationId: 'deleteBackupPolicy' })
  async delete(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: BackupPolicyId }) id: BackupPolicyId): Promise<void> {
    const asked = requestOf(request, {});
    const answer = await obeyed(this.gateway, reply, asked, { to: 'storage', target: id, type: 'DeleteBackupPolicy', data: { policyId: id }, kind: 'delete-backup-policy', stream: `backup-policy-${id}` });
    if (answer !== undefined) void reply.code(204).send();
  }

  private async send(reply: FastifyReply, id: BackupPolicyId): Promise<void> {
    const policy = await this.gateway.views.document<BackupPolicyDocument>('backup_policy', id);
    if (policy === undefined) throw new ProblemError('backup_policy.not_found', { because: { policyId: id } });
    tagged(reply, policy.version);
    sendJson(reply, JSON.stringify(shownPolicy(policy, this.gateway.now())));
  }
}
