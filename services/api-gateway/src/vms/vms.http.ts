import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Patch, Post, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiHeader, ApiOperation, ApiQuery, ApiResponse, ApiTags } from '@nestjs/swagger';
import { SnapshotId, VmId, VolumeId, type OperationId } from '@chronovirt/contracts/ids';
import { Mac } from '@chronovirt/contracts/subnet/subnet.events';
import { AddNicBody, AddVolumeBody, ChangeVmBody, ChangeVolumeBody, CreateVmBody, ReconfigureVmBody, StopVmBody, TakeSnapshotBody } from '@chronovirt/contracts/vm/vm.commands';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { obeyed } from '../command.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { malformed, ProblemError, refused } from '../problem.http.ts';
import { type Asked, requestOf, sendJson } from '../request.http.ts';
import { envelopeOf, submit, submitBatch, type Submitted } from '../submit.ts';
import { base64url } from '../views.store.ts';
import { csvHeader, csvRow } from './vm-csv.ts';
import { filterFields, operators, parseVmList, type ListFormat, type RawQuery } from './vm-list.ts';
import { pendingOperation, requestedVm } from './requested-vm.ts';
import type { VmSummary } from './vm-summary.projection.ts';

/** Actions take no body, or an empty one. */
const NoBody = z.strictObject({}).optional();
const StopBody = StopVmBody.optional();
const DeleteQuery = z.strictObject({ force: z.enum(['true', 'false']).default('false').describe('Stop it first, without asking the guest') }).meta({ id: 'DeleteVmQuery' });

const RemoveVolumeQuery = z.strictObject({ delete: z.enum(['true', 'false']).default('false').describe('Delete it then') }).meta({ id: 'RemoveVolumeQuery' });

type PowerType = 'StartVm' | 'StopVm' | 'RebootVm' | 'ResetVm' | 'PauseVm' | 'ResumeVm';

@ApiTags('vms')
@ApiBearerAuth()
@Controller('v1/vms')
export class VmsHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Post()
  @HttpCode(202)
  @ApiOperation({ summary: 'Create a VM, or `count` of them', operationId: 'createVm' })
  @ApiHeader({ name: 'Idempotency-Key', required: false, description: '1 to 255 printable characters: the same request with the same key is done once' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation, and the VM as it was asked for', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async create(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Body({ schema: CreateVmBody }) body: CreateVmBody): Promise<void> {
    const asked = requestOf(request, body);
    const { count, ...wish } = body;
    if (count > 1) {
      await this.createMany(asked, wish, count, reply);
      return;
    }
    const { operationId } = asked;
    const vmId = asked.ids.thing('vm');
    const envelope = envelopeOf(asked, { to: 'scheduler', target: vmId, type: 'CreateVm', vmId, data: { vmId, operationId, ...wish } });
    const outcome = await submit(this.gateway.ports, envelope, 'create');
    await this.positioned(reply, outcome, `vm-${vmId}`, [vmId, operationId]);
    sendJson(reply.code(202).header('location', `/v1/operations/${operationId}`), JSON.stringify({
      operation: pendingOperation({ id: operationId, kind: 'create', vmId, commandId: asked.commandId, actor: asked.actor }),
      vm: requestedVm(wish, vmId, operationId),
    }));
  }

  private async createMany(asked: Asked, wish: Omit<CreateVmBody, 'count'>, count: number, reply: FastifyReply): Promise<void> {
    const { operationId, actor } = asked;
    if (wish.name.length + String(count).length + 1 > 63) throw malformed([{ path: 'body.name', code: 'too_big', message: `must leave room for -${String(count)}: the members' names have at most 63 characters` }]);
    const members = Array.from({ length: count }, (_, index) => {
      const commandId = asked.ids.member(index);
      const ids = idsOfMember(asked, commandId);
      const data = { ...wish, name: `${wish.name}-${String(index + 1)}`, vmId: ids.vmId, operationId: ids.operationId };
      return { ...ids, commandId, data, envelope: { ...envelopeOf({ ...asked, commandId, operationId: ids.operationId, requestHash: undefined }, { to: 'scheduler', target: ids.vmId, type: 'CreateVm', vmId: ids.vmId, data }) } };
    });
    const outcome = await submitBatch(this.gateway.ports, { id: asked.commandId, requestHash: asked.requestHash, operationId, kind: 'create-vms', commands: members.map(({ envelope }) => envelope), actor });
    await this.positioned(reply, outcome, `operation-${operationId}`, [operationId]);
    sendJson(reply.code(202).header('location', `/v1/operations/${operationId}`), JSON.stringify({
      operation: pendingOperation({ id: operationId, kind: 'create-vms', vmId: null, commandId: asked.commandId, actor, members: members.map((member) => ({ operationId: member.operationId, vmId: member.vmId })) }),
      vms: members.map((member) => requestedVm(member.data, member.vmId, member.operationId)),
    }));
  }

  @Get()
  @ApiOperation({ summary: 'List, filter, search, sort', operationId: 'listVms', description: `Filters: \`field=value\` or \`field[operator]=value\`. Fields: ${Object.keys(filterFields).join(', ')}. Operators: ${operators.join(', ')} (in and notin take values with commas; like takes *).` })
  @ApiQuery({ name: 'q', required: false, description: 'Words that must all stand in name, description, tags or address' })
  @ApiQuery({ name: 'sort', required: false, description: 'name, createdAt, memoryMib, vcpus, status; a minus before it for falling order; several with commas' })
  @ApiQuery({ name: 'limit', required: false, schema: { type: 'integer', minimum: 1, maximum: 1_000, default: 100 } })
  @ApiQuery({ name: 'cursor', required: false, description: 'The `next` of the page before' })
  @ApiQuery({ name: 'count', required: false, description: 'true: how many there are in all' })
  @ApiQuery({ name: 'format', required: false, schema: { type: 'string', enum: ['json', 'csv', 'ndjson'] } })
  @ApiResponse({ status: 200, description: 'A page', schema: { $ref: '#/components/schemas/VmPage' } })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    const parsed = parseVmList(request.query as RawQuery, base64url);
    if ('errors' in parsed) throw malformed(parsed.errors);
    const { query } = parsed;
    await this.gateway.reading.atLeast(request, reply);
    const page = await this.gateway.views.vmPage(query);
    send(reply, query.format ?? formatOf(request.headers.accept), request, page);
  }

  @Get(':id')
  @ApiOperation({ summary: 'One VM', operationId: 'getVm' })
  @ApiResponse({ status: 200, description: 'The VM, what is desired and what was observed', schema: { $ref: '#/components/schemas/Vm' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: string): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    sendJson(reply, await this.text(id));
  }

  @Patch(':id')
  @ApiOperation({ summary: 'Change description, tags and protection, at any time', operationId: 'changeVm' })
  @ApiResponse({ status: 200, description: 'The VM', schema: { $ref: '#/components/schemas/Vm' } })
  async change(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: ChangeVmBody }) body: ChangeVmBody): Promise<void> {
    const asked = requestOf(request, body);
    const answer = await obeyed(this.gateway, reply, asked, { to: 'scheduler', target: id, type: 'ChangeVm', data: { vmId: id, operationId: asked.operationId, ...body }, kind: 'change', stream: `vm-${id}` });
    if (answer !== undefined) sendJson(reply, await this.text(id));
  }

  @Patch(':id/hardware')
  @HttpCode(202)
  @ApiOperation({ summary: 'Resize, rename, set the boot order, insert or eject a medium; what cannot be so while it runs is so after the next start, and listed as `pending`', operationId: 'reconfigureVm' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async reconfigure(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: ReconfigureVmBody }) body: ReconfigureVmBody): Promise<void> {
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', body);
  }

  @Post(':id/nics')
  @HttpCode(202)
  @ApiOperation({ summary: 'Add an interface in another network; a running guest gets it at once', operationId: 'addNic' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async addNic(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: AddNicBody }) body: z.infer<typeof AddNicBody>): Promise<void> {
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', { addNic: body.network });
  }

  @Delete(':id/nics/:mac')
  @HttpCode(202)
  @ApiOperation({ summary: 'Take an interface away and give its address back; a running guest has to let go of it', operationId: 'removeNic' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async removeNic(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Param('mac', { schema: Mac }) mac: string): Promise<void> {
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', { removeNic: mac });
  }

  @Post(':id/volumes')
  @HttpCode(202)
  @ApiOperation({ summary: 'Add a disk: a new one, blank or over an image, or a volume that no VM has; a running guest gets it at once', operationId: 'addVolume' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async addVolume(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: AddVolumeBody }) body: AddVolumeBody): Promise<void> {
    const asked = requestOf(request, body);
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', 'volume' in body ? { attachVolume: body.volume } : { addVolume: { ...body, volumeId: asked.ids.thing('volume') } });
  }

  @Patch(':id/volumes/:volume')
  @HttpCode(202)
  @ApiOperation({ summary: 'Grow a disk, or limit what the guest may do with it', operationId: 'changeVolume' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async changeVolume(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Param('volume', { schema: VolumeId }) volumeId: VolumeId, @Body({ schema: ChangeVolumeBody }) body: z.infer<typeof ChangeVolumeBody>): Promise<void> {
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', { changeVolume: { volumeId, ...body } });
  }

  @Delete(':id/volumes/:volume')
  @HttpCode(202)
  @ApiOperation({ summary: 'Take a disk away; a running guest has to let go of it. It stays a volume, unless delete=true', operationId: 'removeVolume' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async removeVolume(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Param('volume', { schema: VolumeId }) volumeId: VolumeId, @Query({ schema: RemoveVolumeQuery }) query: z.infer<typeof RemoveVolumeQuery>): Promise<void> {
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', { detachVolume: { volumeId, delete: query.delete === 'true' } });
  }

  @Get(':id/snapshots')
  @ApiOperation({ summary: 'Its snapshots, the oldest first; `parent` makes a tree of them, `current` is the one that the disks are on now', operationId: 'listSnapshots' })
  @ApiResponse({ status: 200, description: 'All of them', schema: { $ref: '#/components/schemas/Snapshots' } })
  async snapshots(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: string): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const { snapshots = [], currentSnapshot = null } = JSON.parse(await this.text(id)) as Partial<VmSummary>;
    sendJson(reply, JSON.stringify({ items: snapshots.map((snapshot) => ({ ...snapshot, current: snapshot.id === currentSnapshot })), next: null }));
  }

  @Post(':id/snapshots')
  @HttpCode(202)
  @ApiOperation({ summary: 'Take a snapshot of its disks, running or not; a guest whose agent answers holds its file systems still for that moment', operationId: 'takeSnapshot' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async takeSnapshot(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: TakeSnapshotBody }) body: TakeSnapshotBody): Promise<void> {
    await this.act(request, reply, id, 'TakeSnapshot', 'snapshot', { ...body, snapshotId: requestOf(request, body).ids.thing('snapshot') });
  }

  @Delete(':id/snapshots/:snapshot')
  @HttpCode(202)
  @ApiOperation({ summary: 'Delete a snapshot; what others need of it is merged into them, while the VM runs', operationId: 'deleteSnapshot' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async deleteSnapshot(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Param('snapshot', { schema: SnapshotId }) snapshotId: SnapshotId): Promise<void> {
    await this.act(request, reply, id, 'DeleteSnapshot', 'delete-snapshot', { snapshotId });
  }

  @Post(':id/snapshots/:snapshot/revert')
  @HttpCode(202)
  @ApiOperation({ summary: 'Give the disks of a stopped VM what they held at a snapshot; what was written since is lost unless a snapshot holds it', operationId: 'revertVm' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async revert(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Param('snapshot', { schema: SnapshotId }) snapshotId: SnapshotId, @Body({ schema: NoBody }) _body: unknown): Promise<void> {
    await this.act(request, reply, id, 'RevertVm', 'revert', { snapshotId });
  }

  @Delete(':id')
  @HttpCode(202)
  @ApiOperation({ summary: 'Delete a VM; never refused because another operation runs: that one is cancelled', operationId: 'deleteVm' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async delete(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Query({ schema: DeleteQuery }) query: z.infer<typeof DeleteQuery>): Promise<void> {
    await this.act(request, reply, id, 'DeleteVm', 'delete', { force: query.force === 'true' });
  }

  @Post(':id/start')
  @HttpCode(202)
  @ApiOperation({ summary: 'Start', operationId: 'startVm' })
  start(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: NoBody }) _body: unknown): Promise<void> {
    return this.power(request, reply, id, 'StartVm');
  }

  @Post(':id/stop')
  @HttpCode(202)
  @ApiOperation({ summary: 'Stop: ask the guest, and after the timeout cut the power (force) or fail', operationId: 'stopVm' })
  stop(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: StopBody }) body: z.infer<typeof StopBody>): Promise<void> {
    return this.power(request, reply, id, 'StopVm', body ?? StopVmBody.parse({}));
  }

  @Post(':id/reboot')
  @HttpCode(202)
  @ApiOperation({ summary: 'Reboot by the guest', operationId: 'rebootVm' })
  reboot(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: NoBody }) _body: unknown): Promise<void> {
    return this.power(request, reply, id, 'RebootVm');
  }

  @Post(':id/reset')
  @HttpCode(202)
  @ApiOperation({ summary: 'Press the reset button', operationId: 'resetVm' })
  reset(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: NoBody }) _body: unknown): Promise<void> {
    return this.power(request, reply, id, 'ResetVm');
  }

  @Post(':id/pause')
  @HttpCode(202)
  @ApiOperation({ summary: 'Pause', operationId: 'pauseVm' })
  pause(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: NoBody }) _body: unknown): Promise<void> {
    return this.power(request, reply, id, 'PauseVm');
  }

  @Post(':id/resume')
  @HttpCode(202)
  @ApiOperation({ summary: 'Resume', operationId: 'resumeVm' })
  resume(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: NoBody }) _body: unknown): Promise<void> {
    return this.power(request, reply, id, 'ResumeVm');
  }

  private power(request: FastifyRequest, reply: FastifyReply, id: VmId, type: PowerType, more: object = {}): Promise<void> {
    return this.act(request, reply, id, type, type.slice(0, -'Vm'.length).toLowerCase(), more);
  }

  /** Submits what is to be done to a VM, and shows it and the operation once both have seen it. */
  private async act(request: FastifyRequest, reply: FastifyReply, id: VmId, type: string, kind: string, more: object): Promise<void> {
    const asked = requestOf(request, more);
    const { operationId } = asked;
    const envelope = envelopeOf(asked, { to: 'scheduler', target: id, type, vmId: id, data: { vmId: id, operationId, ...more } });
    const outcome = await submit(this.gateway.ports, envelope, kind);
    await this.positioned(reply, outcome, `vm-${id}`, [id, operationId]);
    await Promise.all([this.gateway.reading.own(id), this.gateway.reading.own(operationId)]);
    const [vm, operation] = await Promise.all([this.gateway.views.vm(id), this.gateway.operations.one(operationId)]);
    const shown = operation ?? pendingOperation({ id: operationId, kind, vmId: id, commandId: asked.commandId, actor: asked.actor });
    sendJson(reply.code(202).header('location', `/v1/operations/${operationId}`), `{"operation":${JSON.stringify(shown)},"vm":${vm ?? 'null'}}`);
  }

  /** The VM's text. One that was accepted and that its receiver has not taken yet is shown as requested. */
  private async text(id: string): Promise<string> {
    const known = await this.gateway.views.vm(id);
    if (known !== undefined) return known;
    const accepted = await this.gateway.views.acceptedVm(id);
    const wish = accepted?.type === 'CreateVm' ? CreateVmBody.omit({ count: true }).strip().safeParse(accepted.data) : undefined;
    if (accepted === undefined || wish?.success !== true) throw new ProblemError('vm.not_found', { because: { vmId: id } });
    return JSON.stringify(requestedVm(wish.data, id, accepted.operationId));
  }

  /** Refusals become problems; an answer's position goes into the header and is waited for by later reads. */
  private async positioned(reply: FastifyReply, outcome: Submitted, stream: string, ids: readonly string[]): Promise<void> {
    if (outcome.kind === 'refused') throw refused(outcome.refusal);
    if (outcome.kind === 'answered') await this.gateway.reading.wrote(reply, stream, outcome.answer, ids);
  }
}

const idsOfMember = (asked: Asked, commandId: string): { readonly vmId: VmId; readonly operationId: OperationId } => {
  const ids = asked.idsOf(commandId);
  return { vmId: ids.thing('vm'), operationId: ids.operationId };
};

const formatOf = (accept: string | undefined): ListFormat => (accept?.includes('text/csv') === true ? 'csv' : accept?.includes('application/x-ndjson') === true ? 'ndjson' : 'json');

const send = (reply: FastifyReply, format: ListFormat, request: FastifyRequest, page: { readonly items: readonly string[]; readonly next: string | null; readonly count: number | undefined }): void => {
  if (page.next !== null) {
    const next = new URLSearchParams(request.url.split('?')[1] ?? '');
    next.set('cursor', page.next);
    void reply.header('link', `</v1/vms?${next.toString()}>; rel="next"`);
  }
  if (page.count !== undefined) void reply.header('cv-count', String(page.count));
  switch (format) {
    case 'json':
      sendJson(reply, `{"items":[${page.items.join(',')}],"next":${JSON.stringify(page.next)}${page.count === undefined ? '' : `,"count":${String(page.count)}`}}`);
      return;
    case 'ndjson':
      void reply.header('content-type', 'application/x-ndjson; charset=utf-8').send(page.items.map((item) => `${item}\n`).join(''));
      return;
    case 'csv':
      void reply.header('content-type', 'text/csv; charset=utf-8').header('content-disposition', 'attachment; filename="vms.csv"')
        .send(csvHeader + page.items.map((item) => csvRow(JSON.parse(item) as VmSummary)).join(''));
  }
};
