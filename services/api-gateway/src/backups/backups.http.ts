import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { DrillBackupBody, drillName } from '@chronovirt/contracts/backup/backup';
import { RestoreBackupBody } from '@chronovirt/contracts/backup/backup.commands';
import { BackupId, VmId } from '@chronovirt/contracts/ids';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { obeyed } from '../command.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { PageQuery, pageOf } from '../page.http.ts';
import { ProblemError } from '../problem.http.ts';
import { requestOf, sendJson, tagged } from '../request.http.ts';
import { acceptedNew } from '../vms/new-vm.http.ts';
import { pendingOperation } from '../vms/requested-vm.ts';
import { Write } from '../write.http.ts';
import type { BackupDocument } from './backup.projection.ts';

const BackupsQuery = PageQuery.extend({ vm: VmId.optional().describe('Those of one VM, which need not exist any more') }).meta({ id: 'BackupsQuery' });

@ApiTags('backups')
@ApiBearerAuth()
@Controller('v1/backups')
export class BackupsHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Get()
  @ApiOperation({ summary: 'Backups, also of VMs that are deleted', operationId: 'listBackups' })
  @ApiResponse({ status: 200, description: 'A page', schema: { $ref: '#/components/schemas/BackupPage' } })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: BackupsQuery }) { vm, ...query }: z.infer<typeof BackupsQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply);
    // The schema allows nothing but an id there.
    sendJson(reply, JSON.stringify(await pageOf(this.gateway.views, 'backup', query, (backups: readonly BackupDocument[]) => backups, vm === undefined ? undefined : `vm_id = '${vm}'`)));
  }

  @Get(':id')
  @ApiOperation({ summary: 'One backup: what it holds, what it builds on, whether it was seen to run', operationId: 'getBackup' })
  @ApiResponse({ status: 200, description: 'The backup', schema: { $ref: '#/components/schemas/Backup' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: BackupId }) id: BackupId): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const backup = await this.known(id);
    // What guards it is what guards all of its VM: another may have come that builds on it.
    const version = (await this.gateway.events.since(streamOf(backup), backup.version)).at(-1)?.version ?? backup.version;
    tagged(reply, version);
    sendJson(reply, JSON.stringify({ ...backup, version }));
  }

  @Delete(':id')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Delete a backup; refused while another builds on it, naming that', operationId: 'deleteBackup' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation' })
  async delete(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: BackupId }) id: BackupId): Promise<void> {
    const backup = await this.known(id);
    const asked = requestOf(request, {});
    const { operationId, commandId, actor } = asked;
    const answer = await obeyed(this.gateway, reply, asked, { to: 'storage', target: backup.vmId, type: 'DeleteBackup', data: { vmId: backup.vmId, backupId: id, operationId }, kind: 'delete-backup', stream: streamOf(backup) });
    if (answer === undefined) return;
    await this.gateway.reading.own(operationId);
    sendJson(reply.code(202).header('location', `/v1/operations/${operationId}`), JSON.stringify({ operation: pendingOperation({ id: operationId, kind: 'delete-backup', vmId: null, commandId, actor }) }));
  }

  @Post(':id/restore')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Make a new VM of a backup, with a name, address and identity of its own; every file is first seen to be what it was', operationId: 'restoreBackup' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation, and the new VM', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async restore(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: BackupId }) id: BackupId, @Body({ schema: RestoreBackupBody }) body: RestoreBackupBody): Promise<void> {
    await this.begin(request, reply, id, 'restore', body, () => ({ ...body, drill: false }));
  }

  @Post(':id/drill')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'See whether a machine that is made of a backup comes up: it gets no way to any network, and is taken away again whatever comes of it; the backup says the result', operationId: 'drillBackup' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation, and the machine that goes again', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async drill(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: BackupId }) id: BackupId, @Body({ schema: DrillBackupBody }) body: DrillBackupBody): Promise<void> {
    const { network, node, ...proof } = body;
    await this.begin(request, reply, id, 'drill', body, (vmId) => ({ name: drillName(vmId), ...(network === undefined ? {} : { network }), ...(node === undefined ? {} : { node }), drill: true, proof }));
  }

  private async begin(request: FastifyRequest, reply: FastifyReply, backupId: BackupId, kind: string, body: object, wish: (vmId: VmId) => object): Promise<void> {
    const asked = requestOf(request, { ...body, backupId });
    const vmId = asked.ids.thing('vm');
    await acceptedNew(this.gateway, reply, asked, { vmId, kind, type: 'RestoreBackup', data: { backupId, ...wish(vmId) } });
  }

  private async known(id: BackupId): Promise<BackupDocument> {
    const backup = await this.gateway.views.document<BackupDocument>('backup', id);
    if (backup === undefined) throw new ProblemError('backup.not_found', { because: { backupId: id } });
    return backup;
  }
}

const streamOf = ({ vmId }: BackupDocument): string => `archive-${vmId}`;
