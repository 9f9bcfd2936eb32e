import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Put, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { BootJobBody, type BootJobWish, type BootValue, RunOnManyBody } from '@chronovirt/contracts/boot-job/boot-job';
import { BootJobId, BootRunId, VmId } from '@chronovirt/contracts/ids';
import { refuse } from '@chronovirt/decider/decider';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { decided } from '../command.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { acceptMany, type Member, refuseExpected } from '../operations/batch.http.ts';
import { PageQuery, pageOf } from '../page.http.ts';
import { malformed, ProblemError, refused } from '../problem.http.ts';
import { type Asked, requestOf, sendJson, tagged } from '../request.http.ts';
import type { VmSummary } from '../vms/vm-summary.projection.ts';
import { Write } from '../write.http.ts';
import { bootJob } from './boot-job.ts';
import type { BootJobDocument, BootRunDocument } from './boot-job.projection.ts';
import { badVariables, bootRunOf, sameRun } from './boot-run.ts';
import { bootJobIdOf, builtInJobs } from './built-in.os.ts';
import { jobKnownAs, runIdOf, sealingNode } from './known-jobs.http.ts';

const flag = z.enum(['true', 'false']).default('false');
const JobsQuery = PageQuery.extend({ system: flag.describe('Those too that the platform uses itself') }).meta({ id: 'BootJobsQuery' });
const RunsQuery = PageQuery.extend({
  vm: VmId.optional(), job: BootJobId.optional(), status: z.enum(['pending', 'succeeded', 'failed', 'interrupted']).optional(), system: flag.describe('Those too of jobs that the platform uses itself'),
}).meta({ id: 'BootRunsQuery' });
const ChangeBody = BootJobBody.omit({ name: true }).meta({ id: 'ChangeBootJob' });

@ApiTags('boot jobs')
@ApiBearerAuth()
@Controller('v1/boot-jobs')
export class BootJobsHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Get()
  @ApiOperation({ summary: 'Scripts that VMs can be given to run at a boot; those that come with the platform first', operationId: 'listBootJobs' })
  @ApiResponse({ status: 200, description: 'A page', schema: { $ref: '#/components/schemas/BootJobPage' } })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: JobsQuery }) { system, ...query }: z.infer<typeof JobsQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply);
    const page = await pageOf(this.gateway.views, 'boot_job', query, (jobs: readonly BootJobDocument[]) => jobs);
    const builtIn = query.cursor === undefined ? builtInJobs.filter((job) => system === 'true' || !job.system) : [];
    sendJson(reply, JSON.stringify({ ...page, items: [...builtIn, ...page.items] }));
  }

  @Get(':id')
  @ApiOperation({ summary: 'One boot job', operationId: 'getBootJob' })
  @ApiResponse({ status: 200, description: 'The job', schema: { $ref: '#/components/schemas/BootJob' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: BootJobId }) id: BootJobId): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    await this.send(reply, id);
  }

  @Post()
  @Write()
  @HttpCode(201)
  @ApiOperation({ summary: 'Make a boot job: a script, and the variables that it is told', operationId: 'makeBootJob', description: 'The script is kept in the log. What is secret belongs into a secret variable.' })
  @ApiResponse({ status: 201, description: 'The job', schema: { $ref: '#/components/schemas/BootJob' } })
  async make(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Body({ schema: BootJobBody }) body: BootJobWish): Promise<void> {
    const jobId = bootJobIdOf(body.name);
    if (builtInJobs.some(({ id }) => id === jobId)) throw refused(refuse('boot_job.name_taken', { jobId, name: body.name, field: 'name' }));
    const done = await decided(this.gateway, reply, requestOf(request, body), bootJob, { stream: `boot-job-${jobId}`, command: { type: 'MakeBootJob', data: { jobId, ...body } } }, [jobId]);
    if (done === undefined) return;
    void reply.code(201).header('location', `/v1/boot-jobs/${jobId}`);
    await this.send(reply, jobId);
  }

  @Put(':id')
  @Write()
  @ApiOperation({ summary: 'Change a boot job: its next revision. VMs that were given it run what it was then', operationId: 'changeBootJob' })
  @ApiResponse({ status: 200, description: 'The job', schema: { $ref: '#/components/schemas/BootJob' } })
  async change(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: BootJobId }) id: BootJobId, @Body({ schema: ChangeBody }) body: z.infer<typeof ChangeBody>): Promise<void> {
    const { name } = await this.own(id);
    const done = await decided(this.gateway, reply, requestOf(request, body), bootJob, { stream: `boot-job-${id}`, command: { type: 'ChangeBootJob', data: { jobId: id, name, ...body } } }, [id]);
    if (done !== undefined) await this.send(reply, id);
  }

  @Delete(':id')
  @Write()
  @HttpCode(204)
  @ApiOperation({ summary: 'Delete a boot job. VMs that were given it run it all the same', operationId: 'deleteBootJob' })
  async delete(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: BootJobId }) id: BootJobId): Promise<void> {
    await this.own(id);
    const done = await decided(this.gateway, reply, requestOf(request, {}), bootJob, { stream: `boot-job-${id}`, command: { type: 'DeleteBootJob', data: { jobId: id } } }, [id]);
    if (done !== undefined) void reply.code(204).send();
  }

  @Post(':id/runs')
  @Write()
  @HttpCode(202)
  @ApiOperation({ summary: 'Have many VMs run it at their next boot: each an operation under one parent', operationId: 'runBootJobOnMany' })
  @ApiResponse({ status: 202, description: 'Accepted: the parent, and the runs', schema: { $ref: '#/components/schemas/AcceptedBootRuns' } })
  async runOnMany(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: BootJobId }) id: BootJobId, @Body({ schema: RunOnManyBody }) body: z.infer<typeof RunOnManyBody>): Promise<void> {
    const job = await jobKnownAs(this.gateway, id, 'id').catch(() => { throw new ProblemError('boot_job.not_found', { because: { jobId: id } }); });
    const vms = [...new Set(body.vms)];
    const asked = requestOf(request, { ...sameRun(job, id, body.variables), vms });
    refuseExpected(asked);
    const members = await Promise.all(vms.map((vm, index) => this.memberFor(vm, job, body.variables, asked.ids.member(index), asked)));
    const operation = await acceptMany(this.gateway, asked, 'run-boot-job', members, reply);
    if (operation !== undefined) sendJson(reply, JSON.stringify({ operation, runs: members.map((member) => ({ id: member.about.runId, vmId: member.vmId })) }));
  }

  private async memberFor(vm: string, job: BootJobDocument, variables: Readonly<Record<string, BootValue>>, commandId: string, asked: Asked): Promise<Member & { readonly about: { readonly runId: string; readonly name: string } }> {
    const vmId = vm as VmId;
    await this.gateway.reading.own(vmId);
    const known = await this.gateway.views.vm(vmId);
    if (known === undefined) throw new ProblemError('vm.not_found', { because: { vmId } });
    const { nodeId, name } = JSON.parse(known.text) as VmSummary;
    const node = await sealingNode(this.gateway, nodeId);
    const bad = badVariables(job, variables, node, 'body.variables');
    if (bad.length > 0) throw malformed(bad);
    const { operationId } = asked.idsOf(commandId);
    const runId = runIdOf(commandId, 0);
    return { commandId, operationId, vmId, about: { runId, name }, command: { to: 'scheduler', target: vmId, type: 'ReconfigureVm', vmId, data: { vmId, operationId, addBootRun: bootRunOf(job, variables, vmId, runId, node) } } };
  }

  /** One that people have made. */
  private async own(id: BootJobId): Promise<BootJobDocument> {
    if (builtInJobs.some((job) => job.id === id)) throw refused(refuse('boot_job.built_in', { jobId: id }));
    await this.gateway.reading.own(id);
    const job = await this.gateway.views.document<BootJobDocument>('boot_job', id);
    if (job === undefined) throw new ProblemError('boot_job.not_found', { because: { jobId: id } });
    return job;
  }

  private async send(reply: FastifyReply, id: BootJobId): Promise<void> {
    const job = builtInJobs.find((one) => one.id === id) ?? await this.gateway.views.document<BootJobDocument>('boot_job', id);
    if (job === undefined) throw new ProblemError('boot_job.not_found', { because: { jobId: id } });
    tagged(reply, job.version);
    sendJson(reply, JSON.stringify(job));
  }
}

@ApiTags('boot jobs')
@ApiBearerAuth()
@Controller('v1/boot-runs')
export class BootRunsHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Get()
  @ApiOperation({ summary: 'Which VM is to run what at its next boot, and how it went', operationId: 'listBootRuns' })
  @ApiResponse({ status: 200, description: 'A page', schema: { $ref: '#/components/schemas/BootRunPage' } })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: RunsQuery }) { vm, job, status, system, ...query }: z.infer<typeof RunsQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, ...(vm === undefined ? [] : [vm]));
    // The schemas allow nothing but ids and words there.
    const where = [
      'exists (select from gateway.vm_summary v where v.id = vm_id)', ...(vm === undefined ? [] : [`vm_id = '${vm}'`]), ...(job === undefined ? [] : [`doc -> 'job' ->> 'id' = '${job}'`]),
      ...(status === undefined ? [] : [`status = '${status}'`]), ...(system === 'true' ? [] : [`doc -> 'job' ->> 'system' = 'false'`]),
    ].join(' and ');
    sendJson(reply, JSON.stringify(await pageOf(this.gateway.views, 'boot_run', query, (runs: readonly BootRunDocument[]) => runs, where)));
  }

  @Get(':id')
  @ApiOperation({ summary: 'One run, with the end of what it printed', operationId: 'getBootRun' })
  @ApiResponse({ status: 200, description: 'The run', schema: { $ref: '#/components/schemas/BootRun' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: BootRunId }) id: BootRunId): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const run = await this.gateway.views.document<BootRunDocument>('boot_run', id);
    if (run === undefined) throw new ProblemError('boot_run.not_found', { because: { runId: id } });
    sendJson(reply, JSON.stringify(run));
  }
}
