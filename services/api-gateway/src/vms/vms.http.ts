import { randomInt } from 'node:crypto';
import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Patch, Post, Put, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiQuery, ApiResponse, ApiTags } from '@nestjs/swagger';
import { TakeBackupBody } from '@chronovirt/contracts/backup/backup.commands';
import { RunBootJobBody, type BootRun } from '@chronovirt/contracts/boot-job/boot-job';
import { DomainPlan } from '@chronovirt/contracts/agent/agent.commands';
import { DomainUsage, DomainXml } from '@chronovirt/contracts/console/console.commands';
import { BootRunId, type NodeId, SnapshotId, VmId, VolumeId } from '@chronovirt/contracts/ids';
import { Mac } from '@chronovirt/contracts/subnet/subnet.events';
import { passwordPurpose, type ScreenPassword, ScreenPasswordBody, screenPurpose, SetPasswordBody, SshKeysBody, type GuestRequest } from '@chronovirt/contracts/vm/guest';
import { AssignedDevice, DeviceName } from '@chronovirt/contracts/vm/assigned';
import { AddNicBody, AddVolumeBody, ChangeVmBody, ChangeVolumeBody, CloneVmBody, CreateVmBody, PublishVmBody, RebuildVmBody, ReconfigureVmBody, StopVmBody, TakeSnapshotBody } from '@chronovirt/contracts/vm/vm.commands';
import { newCommandId } from '@chronovirt/event-log/command-id';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { badVariables, bootRunOf, sameRun } from '../boot-jobs/boot-run.ts';
import { RESET_PASSWORD } from '../boot-jobs/built-in.os.ts';
import { jobKnownAs, runIdOf, sealingNode } from '../boot-jobs/known-jobs.http.ts';
import { bytesOf } from '../bytes/node-access.http.ts';
import { noAnswer, obeyed, refusedWith } from '../command.http.ts';
import { vmToLookAt } from '../console/vm-to-look-at.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import type { ImageDocument } from '../images/image.projection.ts';
import { nameTaken } from '../images/name-taken.http.ts';
import type { BadField } from '../problem.ts';
import { malformed, ProblemError } from '../problem.http.ts';
import { acceptMany, type Member, refuseExpected } from '../operations/batch.http.ts';
import { type Asked, requestOf, sendJson, tagged } from '../request.http.ts';
import { envelopeOf, submit, type Submitted } from '../submit.ts';
import { linesOf } from '../ssh-keys/named-keys.http.ts';
import { base64url } from '../views.store.ts';
import { sendRehearsal, Write } from '../write.http.ts';
import { badCloudInit } from './cloud-init.ts';
import { madePassword } from './password.ts';
import { csvHeader, csvRow } from './vm-csv.ts';
import { filterFields, operators, parseVmList, type ListFormat, type RawQuery } from './vm-list.ts';
import { acceptedNew } from './new-vm.http.ts';
import { pendingOperation, requestedVm } from './requested-vm.ts';
import type { VmSummary } from './vm-summary.projection.ts';
import { xmlDiff } from './xml-diff.ts';
import { parseYaml } from './yaml.http.ts';

/** Actions take no body, or an empty one. */
const NoBody = z.strictObject({}).optional();
const StopBody = StopVmBody.optional();
const RebuildBody = RebuildVmBody.optional();
const DeleteQuery = z.strictObject({ force: z.enum(['true', 'false']).default('false').describe('Stop it first, without asking the guest'),
  deleteDisks: z.enum(['true', 'false']).default('false').describe('Delete its other disks too; without, they stay as volumes that no VM has'),
}).meta({ id: 'DeleteVmQuery' });

const GetQuery = z.strictObject({ include: z.enum(['usage']).optional().describe('usage: what it has used of CPU, memory, disks and interfaces, asked of its node now; null when it does not run') }).meta({ id: 'GetVmQuery' });

const RemoveVolumeQuery = z.strictObject({ delete: z.enum(['true', 'false']).default('false').describe('Delete it then') }).meta({ id: 'RemoveVolumeQuery' });

/** RFB knows no more. */
const SCREEN_PASSWORD_LENGTH = 8;

type PowerType = 'StartVm' | 'StopVm' | 'RebootVm' | 'ResetVm' | 'PauseVm' | 'ResumeVm' | 'SaveVm';

@ApiTags('vms')
@ApiBearerAuth()
@Controller('v1/vms')
export class VmsHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Post()
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Create a VM, or `count` of them', operationId: 'createVm' })
  @ApiResponse({ status: 202, description: 'Accepted: the operation, and the VM as it was asked for', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async create(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Body({ schema: CreateVmBody }) body: CreateVmBody): Promise<void> {
    const asked = requestOf(request, body);
    const { count, sshKeys, bootJobs, ...asWished } = body;
    const bad = [...badCloudInit(body.cloudInit, parseYaml), ...this.past(body.expiresAt)];
    if (bad.length > 0) throw malformed(bad);
    const known = await linesOf(this.gateway, sshKeys ?? [], 'sshKeys');
    const bootRuns = bootJobs === undefined ? undefined : await Promise.all(bootJobs.map(async ({ job: reference, variables }, index) => {
      const job = await jobKnownAs(this.gateway, reference, `bootJobs.${String(index)}.job`);
      const wrong = badVariables(job, variables, undefined, `body.bootJobs.${String(index)}.variables`);
      if (wrong.length > 0) throw malformed(wrong);
      return bootRunOf(job, variables, asked.ids.thing('vm'), runIdOf(asked.commandId, index), undefined);
    }));
    const wish: CreateWish = {
      ...asWished, ...(bootRuns === undefined ? {} : { bootRuns }),
      ...(known.length === 0 ? {} : { cloudInit: { ...asWished.cloudInit, sshKeys: [...new Set([...asWished.cloudInit?.sshKeys ?? [], ...known])] } }),
    };
    if (count > 1) {
      await this.createMany(asked, wish, count, reply);
      return;
    }
    const { operationId } = asked;
    const vmId = asked.ids.thing('vm');
    const envelope = envelopeOf(asked, { to: 'scheduler', target: vmId, type: 'CreateVm', vmId, data: { vmId, operationId, ...wish } });
    const outcome = await submit(this.gateway.ports, envelope, 'create');
    if (await this.rehearsed(asked, reply, outcome, `vm-${vmId}`)) return;
    await this.positioned(reply, outcome, `vm-${vmId}`, [vmId, operationId]);
    sendJson(reply.code(202).header('location', `/v1/operations/${operationId}`), JSON.stringify({
      operation: pendingOperation({ id: operationId, kind: 'create', vmId, commandId: asked.commandId, actor: asked.actor }),
      vm: requestedVm(wish, vmId, operationId),
    }));
  }

  private async createMany(asked: Asked, wish: CreateWish, count: number, reply: FastifyReply): Promise<void> {
    refuseExpected(asked);
    if (wish.name.length + String(count).length + 1 > 63) throw malformed([{ path: 'body.name', code: 'too_big', message: `must leave room for -${String(count)}: the members' names have at most 63 characters` }]);
    const share = { vcpus: wish.vcpus, memoryMib: wish.memoryMib };
    const members = Array.from({ length: count }, (_, index) => {
      const commandId = asked.ids.member(index);
      const ids = asked.idsOf(commandId);
      const [vmId, own] = [ids.thing('vm'), ids.operationId];
      const bootRuns = wish.bootRuns?.map((run, at) => ({ ...run, runId: runIdOf(commandId, at) }));
      const data = { ...wish, name: `${wish.name}-${String(index + 1)}`, vmId, operationId: own, ...(bootRuns === undefined ? {} : { bootRuns }) };
      return { commandId, vmId, operationId: own, data, share, about: { name: data.name }, command: { to: 'scheduler', target: vmId, type: 'CreateVm', vmId, data } } as const satisfies Member & { readonly data: CreateWish };
    });
    const operation = await acceptMany(this.gateway, asked, 'create-vms', members, reply);
    if (operation !== undefined) sendJson(reply, JSON.stringify({ operation, vms: members.map((member) => requestedVm(member.data, member.vmId, member.operationId)) }));
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
  @ApiOperation({ summary: 'One VM, with its disks, interfaces, addresses and snapshots', operationId: 'getVm' })
  @ApiResponse({ status: 200, description: 'The VM, what is desired and what was observed', schema: { $ref: '#/components/schemas/Vm' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Query({ schema: GetQuery }) query: z.infer<typeof GetQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const { text, version } = await this.shown(id);
    const nodeId = query.include === 'usage' ? vmToLookAt(id, text) : undefined;
    tagged(reply, version);
    const usage = nodeId === undefined ? '' : `,"usage":${typeof nodeId === 'string' ? (await this.gateway.askNode(nodeId, { vmId: id, kind: 'usage' })).toString('utf8') : 'null'}`;
    sendJson(reply, `${text.slice(0, -1)},"image":${JSON.stringify(await this.imageOf(text))}${usage}}`);
  }

  /** An image may have been deleted while a VM was being made of it: the VM goes on without. */
  private async imageOf(text: string): Promise<{ readonly id: string; readonly name: string | null; readonly deleted: boolean } | null> {
    const { imageId } = (JSON.parse(text) as VmSummary).spec;
    if (imageId === null) return null;
    const image = await this.gateway.views.document<ImageDocument>('image', imageId);
    return { id: imageId, name: image?.name ?? null, deleted: image === undefined };
  }

  @Get(':id/xml')
  @ApiOperation({ summary: 'Its domain in libvirt\'s words, as its node has it now, beside what it should be', operationId: 'getVmXml', description: 'Passwords are left out.' })
  @ApiResponse({ status: 200, description: 'Three texts', schema: { $ref: '#/components/schemas/VmXml' } })
  async xml(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const { status, observed, nodeId, generation } = await this.summary(id);
    if (status === 'unknown' && observed !== null) throw new ProblemError('node.silent', { because: { nodeId } });
    const xml = await this.gateway.askNode(nodeId as NodeId, { vmId: id, kind: 'xml', generation, plan: await this.planned(request, id) });
    sendJson(reply, `{"vmId":${JSON.stringify(id)},"nodeId":${JSON.stringify(nodeId)},${xml.toString('utf8').slice(1)}`);
  }

  @Patch(':id')
  @Write()
  @ApiOperation({ summary: 'Change description, tags, protection and until when it is wanted, at any time', operationId: 'changeVm' })
  @ApiResponse({ status: 200, description: 'The VM', schema: { $ref: '#/components/schemas/Vm' } })
  async change(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: ChangeVmBody }) body: ChangeVmBody): Promise<void> {
    const bad = this.past(body.expiresAt);
    if (bad.length > 0) throw malformed(bad);
    const asked = requestOf(request, body);
    const answer = await obeyed(this.gateway, reply, asked, { to: 'scheduler', target: id, type: 'ChangeVm', data: { vmId: id, operationId: asked.operationId, ...body }, kind: 'change', stream: `vm-${id}` });
    if (answer !== undefined) await this.send(reply, id);
  }

  @Patch(':id/hardware')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Resize, rename, set the boot order, insert or eject a medium, give the guest a host name or new words for cloud-init; what cannot be so while it runs is so after the next start, and listed as `pending`', operationId: 'reconfigureVm' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async reconfigure(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: ReconfigureVmBody }) body: ReconfigureVmBody): Promise<void> {
    const bad = badCloudInit(body.cloudInit, parseYaml);
    if (bad.length > 0) throw malformed(bad);
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', body, body.expert === undefined ? {} : { rehearsed: (change) => this.xmlDifference(request, id, change) });
  }

  @Post(':id/nics')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Add an interface in another network; a running guest gets it at once', operationId: 'addNic' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async addNic(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: AddNicBody }) body: z.infer<typeof AddNicBody>): Promise<void> {
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', { addNic: body.network });
  }

  @Delete(':id/nics/:mac')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Take an interface away and give its address back; a running guest has to let go of it', operationId: 'removeNic' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async removeNic(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Param('mac', { schema: Mac }) mac: string): Promise<void> {
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', { removeNic: mac });
  }

  @Post(':id/volumes')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Add a disk: a new one, blank or over an image, or a volume that no VM has; a running guest gets it at once', operationId: 'addVolume' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async addVolume(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: AddVolumeBody }) body: AddVolumeBody): Promise<void> {
    const asked = requestOf(request, body);
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', 'volume' in body ? { attachVolume: body.volume } : { addVolume: { ...body, volumeId: asked.ids.thing('volume') } });
  }

  @Patch(':id/volumes/:volume')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Grow a disk, or limit what the guest may do with it', operationId: 'changeVolume' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async changeVolume(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Param('volume', { schema: VolumeId }) volumeId: VolumeId, @Body({ schema: ChangeVolumeBody }) body: z.infer<typeof ChangeVolumeBody>): Promise<void> {
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', { changeVolume: { volumeId, ...body } });
  }

  @Delete(':id/volumes/:volume')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Take a disk away; a running guest has to let go of it. It stays a volume, unless delete=true', operationId: 'removeVolume' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async removeVolume(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Param('volume', { schema: VolumeId }) volumeId: VolumeId, @Query({ schema: RemoveVolumeQuery }) query: z.infer<typeof RemoveVolumeQuery>): Promise<void> {
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', { detachVolume: { volumeId, delete: query.delete === 'true' } });
  }

  @Post(':id/devices')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Give it a device: one of its node (as GET /v1/nodes/:id lists them), which is then its alone and binds it to that node, or a virtual one by USB. A running guest gets it at once where it can', operationId: 'addDevice' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async addDevice(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: AssignedDevice }) body: AssignedDevice): Promise<void> {
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', { addDevice: body });
  }

  @Delete(':id/devices/:device')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Take a device away and give it back to its node; a running guest has to let go of it', operationId: 'removeDevice' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async removeDevice(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Param('device', { schema: DeviceName }) device: string): Promise<void> {
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', { removeDevice: device });
  }

  @Post(':id/rebuild')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Make the system disk of a stopped VM anew from its image; CPUs, memory, interfaces, addresses and other disks stay', operationId: 'rebuildVm' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async rebuild(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: RebuildBody }) body: z.infer<typeof RebuildBody>): Promise<void> {
    const { keepDays } = body ?? RebuildVmBody.parse({});
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', { rebuild: { volumeId: requestOf(request, body).ids.thing('volume'), keepDays } });
  }

  @Get(':id/snapshots')
  @ApiOperation({ summary: 'Its snapshots, the oldest first; `parent` makes a tree of them, `current` is the one that the disks are on now', operationId: 'listSnapshots' })
  @ApiResponse({ status: 200, description: 'All of them', schema: { $ref: '#/components/schemas/Snapshots' } })
  async snapshots(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: string): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const { snapshots = [], currentSnapshot = null } = JSON.parse((await this.shown(id)).text) as Partial<VmSummary>;
    sendJson(reply, JSON.stringify({ items: snapshots.map((snapshot) => ({ ...snapshot, current: snapshot.id === currentSnapshot })), next: null }));
  }

  @Post(':id/publish')
  @Write()
  @HttpCode(202)
  @ApiOperation({
    summary: 'Make an image of its first disk, or of what a snapshot froze of it', operationId: 'publishVm',
    description: 'The image stands alone. A VM that is made of it is told by cloud-init that it is another: a new instance id, host name, host keys and machine id.',
  })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async publish(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: PublishVmBody }) body: PublishVmBody): Promise<void> {
    bytesOf(this.gateway);
    const imageId = requestOf(request, body).ids.thing('image');
    await nameTaken(this.gateway.views, body.name, imageId);
    await this.act(request, reply, id, 'PublishVm', 'publish', { ...body, imageId });
  }

  @Post(':id/snapshots')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Take a snapshot of its disks, running or not; a guest whose agent answers holds its file systems still for that moment', operationId: 'takeSnapshot' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async takeSnapshot(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: TakeSnapshotBody }) body: TakeSnapshotBody): Promise<void> {
    await this.act(request, reply, id, 'TakeSnapshot', 'snapshot', { ...body, snapshotId: requestOf(request, body).ids.thing('snapshot') });
  }

  @Delete(':id/snapshots/:snapshot')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Delete a snapshot; what others need of it is merged into them, while the VM runs', operationId: 'deleteSnapshot' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async deleteSnapshot(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Param('snapshot', { schema: SnapshotId }) snapshotId: SnapshotId): Promise<void> {
    await this.act(request, reply, id, 'DeleteSnapshot', 'delete-snapshot', { snapshotId });
  }

  @Post(':id/snapshots/:snapshot/revert')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Give the disks of a stopped VM what they held at a snapshot; what was written since is lost unless a snapshot holds it', operationId: 'revertVm' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async revert(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Param('snapshot', { schema: SnapshotId }) snapshotId: SnapshotId, @Body({ schema: NoBody }) _body: unknown): Promise<void> {
    await this.act(request, reply, id, 'RevertVm', 'revert', { snapshotId });
  }

  @Post(':id/snapshots/:snapshot/clone')
  @Write()
  @HttpCode(202)
  @ApiOperation({
    summary: 'Make a new VM of what a snapshot holds, with a name, address and identity of its own', operationId: 'cloneVm',
    description: 'Its disks are copies that stand alone, on the node of the VM that it is made of; it has the same hardware, and interfaces in the same networks. cloud-init tells it that it is another: a new instance id, host name, host keys and machine id.',
  })
  @ApiResponse({ status: 202, description: 'Accepted: the operation, and the new VM', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async clone(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) ofVm: VmId, @Param('snapshot', { schema: SnapshotId }) snapshotId: SnapshotId, @Body({ schema: CloneVmBody }) body: CloneVmBody): Promise<void> {
    const asked = requestOf(request, { ...body, ofVm, snapshotId });
    await acceptedNew(this.gateway, reply, asked, { vmId: asked.ids.thing('vm'), kind: 'clone', type: 'CloneVm', data: { ofVm, snapshotId, ...body } });
  }

  @Post(':id/backups')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Back its disks up to a target, running or not: all that they hold, or what has changed since the last one', operationId: 'takeBackup' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async takeBackup(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: TakeBackupBody.optional() }) body: TakeBackupBody | undefined): Promise<void> {
    const { target, kind: wants } = body ?? TakeBackupBody.parse({});
    const backupId = requestOf(request, body ?? {}).ids.thing('backup');
    await this.act(request, reply, id, 'BackupVm', 'backup', { ...(target === undefined ? {} : { target }), wants, scheduled: null, backupId }, { sameAs: body ?? {}, shown: { backupId } });
  }

  @Delete(':id')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Delete a VM; never refused because another operation runs: that one is cancelled', operationId: 'deleteVm' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async delete(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Query({ schema: DeleteQuery }) query: z.infer<typeof DeleteQuery>): Promise<void> {
    await this.act(request, reply, id, 'DeleteVm', 'delete', { force: query.force === 'true', ...(query.deleteDisks === 'true' ? { deleteDisks: true } : {}) });
  }

  @Post(':id/start')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Start', operationId: 'startVm' })
  start(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: NoBody }) _body: unknown): Promise<void> {
    return this.power(request, reply, id, 'StartVm');
  }

  @Post(':id/stop')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Stop: ask the guest, and after the timeout cut the power (force) or fail', operationId: 'stopVm' })
  stop(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: StopBody }) body: z.infer<typeof StopBody>): Promise<void> {
    return this.power(request, reply, id, 'StopVm', body ?? StopVmBody.parse({}));
  }

  @Post(':id/reboot')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Reboot by the guest', operationId: 'rebootVm' })
  reboot(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: NoBody }) _body: unknown): Promise<void> {
    return this.power(request, reply, id, 'RebootVm');
  }

  @Post(':id/reset')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Press the reset button', operationId: 'resetVm' })
  reset(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: NoBody }) _body: unknown): Promise<void> {
    return this.power(request, reply, id, 'ResetVm');
  }

  @Post(':id/pause')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Pause', operationId: 'pauseVm' })
  pause(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: NoBody }) _body: unknown): Promise<void> {
    return this.power(request, reply, id, 'PauseVm');
  }

  @Post(':id/resume')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Resume', operationId: 'resumeVm' })
  resume(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: NoBody }) _body: unknown): Promise<void> {
    return this.power(request, reply, id, 'ResumeVm');
  }

  @Post(':id/save')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Put it to rest: its memory into a file, its CPUs and memory back to the node. A start goes on from there', operationId: 'saveVm' })
  save(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: NoBody }) _body: unknown): Promise<void> {
    return this.power(request, reply, id, 'SaveVm');
  }

  @Post(':id/boot-jobs')
  @Write()
  @HttpCode(202)
  @ApiOperation({
    summary: 'Have it run a boot job at its next boot, once', operationId: 'runBootJob',
    description: 'It is delivered through cloud-init; how it went is told by /v1/boot-runs. A secret variable is sealed to the node and written nowhere else. With an Idempotency-Key, two requests are the same whatever their secrets are.',
  })
  @ApiResponse({ status: 202, description: 'Accepted, with the id of the run', schema: { $ref: '#/components/schemas/AcceptedBootRun' } })
  async runBootJob(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: RunBootJobBody }) { job: reference, variables }: RunBootJobBody): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const [job, { nodeId }] = await Promise.all([jobKnownAs(this.gateway, reference, 'job'), this.summary(id)]);
    const node = await sealingNode(this.gateway, nodeId);
    const bad = badVariables(job, variables, node, 'body.variables');
    if (bad.length > 0) throw malformed(bad);
    const sameAs = sameRun(job, reference, variables);
    const runId = runIdOf(requestOf(request, sameAs).commandId, 0);
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', { addBootRun: bootRunOf(job, variables, id, runId, node) }, { sameAs, shown: { runId } });
  }

  @Delete(':id/boot-jobs/:run')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Have it not run a boot job after all; one that has begun goes on', operationId: 'cancelBootJob' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async cancelBootJob(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Param('run', { schema: BootRunId }) runId: BootRunId): Promise<void> {
    await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', { removeBootRun: runId });
  }

  @Post(':id/password')
  @Write()
  @HttpCode(202)
  @ApiOperation({
    summary: 'Set the password of a user: by the guest agent of one that runs, by cloud-init at the next boot of one that does not, or has no agent; into its disks where there is neither', operationId: 'setPassword',
    description: 'The answer and the operation say how. The password is sealed to the node and written nowhere. With an Idempotency-Key it has to be given, and the key stands for VM, user and method: a password that was made could not be shown again.',
  })
  @ApiResponse({ status: 202, description: 'Accepted, with the password where one was made', schema: { $ref: '#/components/schemas/AcceptedPassword' } })
  async setPassword(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: SetPasswordBody }) { user, password, method: wanted }: SetPasswordBody): Promise<void> {
    if (password === undefined && request.headers['idempotency-key'] !== undefined) throw malformed([{ path: 'body.password', code: 'required', message: 'must be given with an Idempotency-Key: one that is made is shown once' }]);
    await this.gateway.reading.atLeast(request, reply, id);
    const { nodeId, observed, spec } = await this.summary(id);
    const node = await sealingNode(this.gateway, nodeId);
    if (node === undefined) throw new ProblemError('vm.not_provisioned', { because: { vmId: id } });
    const off = observed?.state === 'stopped' || observed?.state === 'crashed';
    const told = spec.cloudInit !== null;
    const hasNobody = async (): Promise<boolean> => off || (told && observed?.state === 'running' && await this.isWithoutAgent(node.id, id));
    const method = wanted ?? (!(await hasNobody()) ? 'guest-agent' : told ? 'next-boot' : 'offline');
    const made = password === undefined ? madePassword(randomInt) : undefined;
    const secret = password ?? made ?? '';
    // What a request is told apart by is kept: the password must not be in it, sealed or not.
    const sameAs = { user, ...(wanted === undefined ? {} : { method: wanted }) };
    const shown = { method, ...(made === undefined ? {} : { password: made }) };
    if (method === 'next-boot') {
      const runId = runIdOf(requestOf(request, sameAs).commandId, 0);
      const job = await jobKnownAs(this.gateway, RESET_PASSWORD, 'job');
      await this.act(request, reply, id, 'ReconfigureVm', 'reconfigure', { addBootRun: bootRunOf(job, { USER_NAME: user, PASSWORD: secret }, id, runId, node) }, { sameAs, shown: { ...shown, runId } });
      return;
    }
    const wish: GuestRequest = { kind: 'password', user, nodeId: node.id, sealed: node.seal(secret, passwordPurpose(id, user)), ...(method === 'offline' ? { offline: true } : {}) };
    await this.act(request, reply, id, 'AskGuest', wish.kind, { request: wish }, { sameAs, shown });
  }

  @Put(':id/screen-password')
  @Write({ repeats: false })
  @ApiOperation({ summary: 'Ask whoever looks at its screen for a password, from the next connection on', operationId: 'setScreenPassword', description: 'Sealed to the node, which asks for it; libvirt and QEMU never have it. A console token is needed all the same.' })
  @ApiResponse({ status: 200, description: 'The VM, with the password where one was made', schema: { $ref: '#/components/schemas/ScreenPasswordSet' } })
  async setScreenPassword(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: ScreenPasswordBody }) { password }: z.infer<typeof ScreenPasswordBody>): Promise<void> {
    if (request.headers['idempotency-key'] !== undefined) throw new ProblemError('idempotency.not_supported', { detail: 'What is sealed is another text each time, so setting a password of a screen takes no Idempotency-Key.' });
    await this.gateway.reading.atLeast(request, reply, id);
    const node = await sealingNode(this.gateway, (await this.summary(id)).nodeId);
    if (node === undefined) throw new ProblemError('vm.not_provisioned', { because: { vmId: id } });
    const made = password === undefined ? madePassword(randomInt).slice(0, SCREEN_PASSWORD_LENGTH) : undefined;
    const sealed = node.seal(password ?? made ?? '', screenPurpose(id));
    if (!(await this.askedForScreenPassword(request, reply, id, { nodeId: node.id, sealed }))) return;
    const { text, version } = await this.shown(id);
    tagged(reply, version);
    sendJson(reply, `{"vm":${text}${made === undefined ? '' : `,"password":${JSON.stringify(made)}`}}`);
  }

  @Delete(':id/screen-password')
  @Write()
  @ApiOperation({ summary: 'Ask nobody who looks at its screen for a password', operationId: 'unsetScreenPassword' })
  @ApiResponse({ status: 200, description: 'The VM', schema: { $ref: '#/components/schemas/Vm' } })
  async unsetScreenPassword(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId): Promise<void> {
    if (await this.askedForScreenPassword(request, reply, id, null)) await this.send(reply, id);
  }

  /** False when the reply was sent. */
  private async askedForScreenPassword(request: FastifyRequest, reply: FastifyReply, id: VmId, password: ScreenPassword | null): Promise<boolean> {
    const asked = requestOf(request, {});
    return await obeyed(this.gateway, reply, asked, { to: 'scheduler', target: id, type: 'SetScreenPassword', data: { vmId: id, operationId: asked.operationId, password }, kind: 'screen-password', stream: `vm-${id}` }) !== undefined;
  }

  @Post(':id/ssh-keys')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Let keys in as a user of the running guest, by its guest agent', operationId: 'addSshKeys' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async addSshKeys(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: SshKeysBody }) body: SshKeysBody): Promise<void> {
    await this.act(request, reply, id, 'AskGuest', 'add-ssh-keys', { request: { kind: 'add-ssh-keys', user: body.user, keys: [...await linesOf(this.gateway, body.keys, 'keys')] } satisfies GuestRequest }, { sameAs: body });
  }

  @Delete(':id/ssh-keys')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Let keys in no more as a user of the running guest, by its guest agent; sessions that are open stay', operationId: 'removeSshKeys' })
  @ApiResponse({ status: 202, description: 'Accepted', schema: { $ref: '#/components/schemas/AcceptedVm' } })
  async removeSshKeys(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: VmId }) id: VmId, @Body({ schema: SshKeysBody }) body: SshKeysBody): Promise<void> {
    await this.act(request, reply, id, 'AskGuest', 'remove-ssh-keys', { request: { kind: 'remove-ssh-keys', user: body.user, keys: [...await linesOf(this.gateway, body.keys, 'keys')] } satisfies GuestRequest }, { sameAs: body });
  }

  /** Asked as a rehearsal: nothing is written, and nobody owes an answer. */
  private async planned(request: FastifyRequest, id: VmId, change?: unknown): Promise<DomainPlan> {
    const outcome = await submit(this.gateway.ports, envelopeOf({ ...requestOf(request, null), expected: undefined, rehearsalId: newCommandId() }, { to: 'scheduler', target: id, type: 'PlanVm', data: { vmId: id, ...(change === undefined ? {} : { change }) } }), undefined);
    if (outcome.kind === 'pending') throw noAnswer();
    if (outcome.kind === 'refused') throw await refusedWith(this.gateway, outcome.refusal, `vm-${id}`);
    return DomainPlan.parse(outcome.answer.facts?.['plan']);
  }

  /** What a change would make different in the words that its libvirt is told; null when its node cannot be asked. */
  private async xmlDifference(request: FastifyRequest, id: VmId, change: unknown): Promise<object> {
    const { nodeId, generation, status } = await this.summary(id);
    if (nodeId === null || status === 'unknown') return { xml: null };
    const expected = async (plan: DomainPlan): Promise<string> => DomainXml.parse(JSON.parse((await this.gateway.askNode(nodeId as NodeId, { vmId: id, kind: 'xml', generation, plan })).toString('utf8'))).expected;
    try {
      const [before, after] = await Promise.all([this.planned(request, id).then(expected), this.planned(request, id, change).then(expected)]);
      return { xml: xmlDiff(before, after) };
    } catch (error) {
      // What would be recorded is known all the same.
      if (error instanceof ProblemError) return { xml: null };
      throw error;
    }
  }

  /** What of it is shown of one that was only asked for, too. */
  private async summary(id: VmId): Promise<Pick<VmSummary, 'status' | 'observed' | 'nodeId' | 'generation' | 'spec'>> {
    return JSON.parse((await this.shown(id)).text) as Pick<VmSummary, 'status' | 'observed' | 'nodeId' | 'generation' | 'spec'>;
  }

  /** What its node says now. false: it has one, or nobody knows. */
  private async isWithoutAgent(nodeId: NodeId, vmId: VmId): Promise<boolean> {
    try {
      return DomainUsage.parse(JSON.parse((await this.gateway.askNode(nodeId, { vmId, kind: 'usage' })).toString('utf8'))).guestAgent === false;
    } catch {
      // Whoever asks the agent itself is told why it cannot be asked.
      return false;
    }
  }

  private past(expiresAt: string | null | undefined): readonly BadField[] {
    return typeof expiresAt !== 'string' || Date.parse(expiresAt) > this.gateway.now().getTime() ? [] : [{ path: 'body.expiresAt', code: 'invalid', message: 'must be a time to come' }];
  }

  private power(request: FastifyRequest, reply: FastifyReply, id: VmId, type: PowerType, more: object = {}): Promise<void> {
    return this.act(request, reply, id, type, type.slice(0, -'Vm'.length).toLowerCase(), more);
  }

  /**
   * Submits what is to be done to a VM, and shows it and the operation once both have seen it. Two requests with
   * one key are the same when `sameAs` is (default: `more`); `shown` is added to the answer.
   */
  private async act(request: FastifyRequest, reply: FastifyReply, id: VmId, type: string, kind: string, more: object, { sameAs = more, shown: added = {}, rehearsed }: { readonly sameAs?: object; readonly shown?: object; readonly rehearsed?: (change: unknown) => Promise<object> } = {}): Promise<void> {
    const asked = requestOf(request, sameAs);
    const { operationId } = asked;
    const envelope = envelopeOf(asked, { to: 'scheduler', target: id, type, vmId: id, data: { vmId: id, operationId, ...more } });
    const outcome = await submit(this.gateway.ports, envelope, kind);
    if (await this.rehearsed(asked, reply, outcome, `vm-${id}`, rehearsed)) return;
    await this.positioned(reply, outcome, `vm-${id}`, [id, operationId]);
    await Promise.all([this.gateway.reading.own(id), this.gateway.reading.own(operationId)]);
    const [vm, operation] = await Promise.all([this.gateway.views.vm(id), this.gateway.operations.one(operationId)]);
    const shown = operation ?? pendingOperation({ id: operationId, kind, vmId: id, commandId: asked.commandId, actor: asked.actor });
    sendJson(reply.code(202).header('location', `/v1/operations/${operationId}`), `{"operation":${JSON.stringify(shown)},"vm":${vm?.text ?? 'null'}${Object.entries(added).map(([name, value]) => `,${JSON.stringify(name)}:${JSON.stringify(value)}`).join('')}}`);
  }

  private async send(reply: FastifyReply, id: string): Promise<void> {
    const { text, version } = await this.shown(id);
    tagged(reply, version);
    sendJson(reply, text);
  }

  /** One that was accepted and that its receiver has not taken yet is shown as requested. */
  private async shown(id: string): Promise<{ readonly text: string; readonly version: number | null }> {
    const known = await this.gateway.views.vm(id);
    if (known !== undefined) return known;
    const accepted = await this.gateway.views.acceptedVm(id);
    const wish = accepted?.type === 'CreateVm' ? CreateVmBody.omit({ count: true, sshKeys: true, bootJobs: true }).strip().safeParse(accepted.data) : undefined;
    if (accepted === undefined || wish?.success !== true) throw new ProblemError('vm.not_found', { because: { vmId: id } });
    return { text: JSON.stringify(requestedVm(wish.data, id, accepted.operationId)), version: null };
  }

  /** True when that was only asked for: then what would happen was sent. */
  private async rehearsed(asked: Asked, reply: FastifyReply, outcome: Submitted, stream: string, more?: (change: unknown) => Promise<object>): Promise<boolean> {
    if (asked.rehearsalId === undefined) return false;
    if (outcome.kind === 'refused') throw await refusedWith(this.gateway, outcome.refusal, stream);
    if (outcome.kind === 'pending') throw noAnswer();
    const change = outcome.answer.rehearsal?.events.find(({ type }) => type === 'VmReconfigureRequested')?.data['change'];
    sendRehearsal(reply, outcome.answer, more === undefined || change === undefined ? {} : await more(change));
    return true;
  }

  /** Refusals become problems; an answer's position goes into the header and is waited for by later reads. */
  private async positioned(reply: FastifyReply, outcome: Submitted, stream: string, ids: readonly string[]): Promise<void> {
    if (outcome.kind === 'refused') throw await refusedWith(this.gateway, outcome.refusal, stream);
    if (outcome.kind === 'answered') await this.gateway.reading.wrote(reply, stream, outcome.answer, ids);
  }
}

type CreateWish = Omit<CreateVmBody, 'count' | 'sshKeys' | 'bootJobs'> & { readonly bootRuns?: readonly BootRun[] };

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
