/*
 * A script that a guest runs once, at its next boot, and what it is told in variables.
 *
 * Where a VM is to run one, everything of it goes with the VM: what somebody changes about the job later
 * changes nothing of what was asked for. Secret variables cross sealed to the node of the VM (libs/messaging/src/seal.ts);
 * what stands here of them, and so in the log, only that node can open.
 */
import { z } from 'zod';
import { BootJobId, BootRunId, NodeId, VmId } from '../ids.ts';
import { Name, text } from '../text.ts';

/** Of an environment variable. Capital letters, so that it is never one of the shell's around it. */
export const BootVariableName = z.string().regex(/^[A-Z_][A-Z0-9_]{0,63}$/, 'must be 1 to 64 capital letters, digits or underscores, and not begin with a digit');

export const BootValue = z.union([text(4_096), z.int(), z.boolean()]);
export type BootValue = z.infer<typeof BootValue>;

const kinds = { string: 'string', integer: 'number', boolean: 'boolean' } as const;
export const fitsType = (type: keyof typeof kinds, value: BootValue): boolean => typeof value === kinds[type];

export const BootVariable = z.strictObject({
  name: BootVariableName,
  description: text(200).default(''),
  type: z.enum(['string', 'integer', 'boolean']).default('string'),
  default: BootValue.optional(),
  required: z.boolean().default(false).describe('Whoever attaches the job has to say it. What is neither required nor said nor has a default is not set'),
  secret: z.boolean().default(false).describe('Sealed to the node, and shown nowhere'),
}).refine(({ type, default: value }) => value === undefined || fitsType(type, value), { path: ['default'], message: 'must be of the type of the variable' })
  .refine(({ secret, default: value }) => !secret || value === undefined, { path: ['default'], message: 'a secret has none: it would stand in the log' });
export type BootVariable = z.infer<typeof BootVariable>;

/** Characters. Eight of them fit into what cloud-init reads. */
const SCRIPT_MAX = 32_768;

/** What a job is, whoever runs it. */
export const BootJobWish = z.object({
  name: Name.describe('Unique in the installation'),
  description: text(1_000).default(''),
  script: text(SCRIPT_MAX).regex(/^#!/, 'must begin with #! and what runs it').describe('Run as root when the guest has booted, with the variables in its environment; no secrets in it'),
  variables: z.array(BootVariable).max(32).default([]).refine((all) => new Set(all.map(({ name }) => name)).size === all.length, 'must name each variable once'),
  timeoutSeconds: z.int().min(1).max(3_600).default(600).describe('It is killed then'),
});
/** The body of POST /v1/boot-jobs and PUT /v1/boot-jobs/:id. */
export const BootJobBody = z.strictObject(BootJobWish.shape).meta({ id: 'BootJobWish' });
export type BootJobWish = z.infer<typeof BootJobWish>;

/** A job that a VM is to run, or a request to run one. */
export const RunBootJobBody = z.strictObject({
  job: text(100).min(1).describe('Id or name of a boot job'),
  variables: z.record(BootVariableName, BootValue).default({}),
}).meta({ id: 'RunBootJob' });
export type RunBootJobBody = z.infer<typeof RunBootJobBody>;

/** The body of POST /v1/boot-jobs/:id/runs. */
export const RunOnManyBody = z.strictObject({
  vms: z.array(VmId).min(1).max(500),
  variables: z.record(BootVariableName, BootValue).default({}),
}).meta({ id: 'RunBootJobOnMany' });
export type RunOnManyBody = z.infer<typeof RunOnManyBody>;

/** One script, for one VM, to be run once. */
export const BootRun = z.object({
  runId: BootRunId, jobId: BootJobId, name: Name, revision: z.int().min(1), system: z.boolean(),
  script: z.string().max(SCRIPT_MAX), timeoutSeconds: z.int().min(1).max(3_600),
  /** For which secrets are sealed; null: there are none. */
  nodeId: NodeId.nullable(),
  variables: z.array(z.union([z.object({ name: BootVariableName, value: text(4_096) }), z.object({ name: BootVariableName, sealed: text(8_192) })])).max(32),
});
export type BootRun = z.infer<typeof BootRun>;

/** That one VM may have before it. */
export const BOOT_RUNS_MAX = 8;

/** Characters of what it printed that are kept: the last of them. */
export const BOOT_OUTPUT_MAX = 4_096;

/** How a run ended. Without a code it was broken off: the guest went down in its middle. */
export const BootResult = z.object({ runId: BootRunId, exitCode: z.int().min(0).max(255).nullable(), output: text(BOOT_OUTPUT_MAX) });
export type BootResult = z.infer<typeof BootResult>;

/** What a secret is sealed for: it opens for no other VM, run or variable. */
export const bootSecretPurpose = (vmId: VmId, runId: BootRunId, name: string): string => `boot job ${vmId} ${runId} ${name}`;
