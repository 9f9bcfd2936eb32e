/** What answers look like, for the description of the API. A spec parses real answers with these. */
import { DomainUsage, DomainXml } from '@chronovirt/contracts/console/console.commands';
import { DrillCriterion } from '@chronovirt/contracts/backup/backup';
import { BackupPolicyWish } from '@chronovirt/contracts/backup-policy/backup-policy.events';
import { BootJobWish } from '@chronovirt/contracts/boot-job/boot-job';
import { CloudInit } from '@chronovirt/contracts/vm/cloud-init';
import { PasswordMethod } from '@chronovirt/contracts/vm/guest';
import { AssignedDevice } from '@chronovirt/contracts/vm/assigned';
import { Expert } from '@chronovirt/contracts/vm/expert';
import { ImageFormat } from '@chronovirt/contracts/image/image.events';
import { SnapshotKind } from '@chronovirt/contracts/vm/snapshot';
import { Autostart, BootOrder, DomainState, Pending, Platform } from '@chronovirt/contracts/vm/vm.events';
import { DiskLimits } from '@chronovirt/contracts/volume/volume.events';
import { z } from 'zod';

const nullable = <T extends z.ZodType>(schema: T) => schema.nullable();
const time = z.string().describe('ISO 8601, UTC');

export const answers = z.registry<{ id: string }>();
const named = <T extends z.ZodType>(id: string, schema: T): T => {
  answers.add(schema, { id });
  return schema;
};

export const ProblemAnswer = named('Problem', z.object({
  type: z.string(), title: z.string(), status: z.int(), detail: z.string(), code: z.string().describe('Stable: rely on it'),
  because: z.unknown().optional(), errors: z.array(z.object({ path: z.string(), code: z.string().optional(), message: z.string() })).optional(),
}));

const snapshot = {
  id: z.string(), kind: SnapshotKind, name: z.string(), description: z.string(), parent: nullable(z.string()), state: DomainState.describe('What the VM did when it was taken'),
  frozen: z.boolean().describe('Whether the guest held its file systems still for it'), takenAt: time, disks: z.array(z.object({ volumeId: z.string(), sizeGib: z.int() })),
};

export const SnapshotsAnswer = named('Snapshots', z.object({ items: z.array(z.object({ ...snapshot, current: z.boolean() })), next: z.null() }));

export const VmAnswer = named('Vm', z.object({
  id: z.string(), name: z.string(), description: z.string(),
  status: z.enum(['requested', 'provisioning', 'running', 'stopped', 'paused', 'saved', 'deleting', 'failed', 'unknown']), statusBecause: nullable(z.string()),
  desired: z.enum(['running', 'stopped', 'paused', 'saved', 'deleted']),
  observed: nullable(z.object({ state: DomainState, reason: z.string(), nodeId: z.string(), generation: z.int(), nodeAt: nullable(time), at: time })),
  spec: z.object({
    imageId: nullable(z.string()), networkId: nullable(z.string()), subnetId: nullable(z.string()), vcpus: z.int(), memoryMib: z.int(), diskGib: z.int(),
    accel: z.enum(['any', 'require-kvm']), devices: z.enum(['virtio', 'legacy']), ...Platform.shape, nodeId: nullable(z.string()), tags: z.array(z.string()), protected: z.boolean(),
    vcpusMax: z.int(), memoryMibMax: z.int(), boot: nullable(BootOrder), media: nullable(z.object({ imageId: z.string(), file: z.string() })), drivers: nullable(z.object({ imageId: z.string(), file: z.string() })).optional(), kernel: nullable(z.object({ imageId: z.string(), file: z.string(), initrd: nullable(z.object({ imageId: z.string(), file: z.string() })), arguments: z.string() })).optional(), bootMenu: z.boolean().optional(), assigned: z.array(AssignedDevice).optional(), cloudInit: nullable(CloudInit), diskLimits: nullable(DiskLimits), expert: nullable(Expert).optional(), expiresAt: nullable(time).optional(), autostart: nullable(Autostart).optional(),
  }),
  volumes: z.array(z.object({ volumeId: z.string(), unit: z.int(), sizeGib: z.int(), limits: nullable(DiskLimits) })).describe('Disks beside the first; unit 1 is the guest\'s vdb'),
  nics: z.array(z.object({ networkId: z.string(), network: z.string(), address: z.string(), mac: z.string() })).describe('Interfaces beside the first'),
  snapshots: z.array(z.object(snapshot)).describe('What its disks held at some moments, the oldest first; `parent` makes a tree of them'), currentSnapshot: nullable(z.string()).describe('The one that the disks are on now'),
  screenPassword: nullable(z.object({ nodeId: z.string(), sealed: z.string() })).describe('What whoever looks at its screen is asked for, as only its node can open it'), bootRuns: z.array(z.object({ runId: z.string(), jobId: z.string(), name: z.string(), revision: z.int(), system: z.boolean() })).describe('What it is to run at its next boot'), pending: z.array(Pending).describe('What will only be so after it was stopped and started'),
  networkName: nullable(z.string()), nodeId: nullable(z.string()), generation: z.int(), address: nullable(z.string()), mac: nullable(z.string()),
  operationId: nullable(z.string()), operation: nullable(z.object({ id: z.string(), kind: z.string(), desiredBefore: z.string() })), waitingDelete: nullable(z.string()),
  expiry: nullable(z.object({ stage: z.enum(['week', 'day', 'expired', 'recycled']).describe('Told a week or a day before its time; stopped; in the recycle bin'), next: time.describe('When that goes on') })),
  failure: nullable(z.object({ code: z.string(), message: z.string(), because: z.unknown(), owed: z.array(z.string()) })),
  createdAt: nullable(time), changedAt: nullable(time), position: nullable(z.int()), version: nullable(z.int()).describe('Its ETag'),
  image: nullable(z.object({ id: z.string(), name: nullable(z.string()), deleted: z.boolean() })).optional().describe('What its first disk began as; null: as nothing. Where one VM is asked for'),
  pinned: z.object({ because: z.string() }).optional().describe('It stays on its node, and why'),
  usage: nullable(DomainUsage).optional().describe('With include=usage: since it was started'),
}));

named('VmXml', z.object({ vmId: z.string(), nodeId: z.string(), ...DomainXml.shape }));

export const OperationAnswer = named('Operation', z.object({
  id: z.string(), kind: z.string(), vmId: nullable(z.string()), status: z.enum(['pending', 'running', 'succeeded', 'failed', 'compensated']), percent: z.int().min(0).max(100),
  steps: z.array(z.object({
    name: z.string(), after: z.array(z.string()), deadlineMs: z.int(), status: z.enum(['waiting', 'running', 'done', 'refused', 'overdue', 'not needed', 'undone', 'owed']),
    startedAt: nullable(time), endedAt: nullable(time),
  })),
  waitsFor: nullable(z.string()), requestedAt: nullable(time), startedAt: nullable(time), deadlineAt: nullable(time), endedAt: nullable(time),
  how: nullable(z.string()).describe('How it was done, such as guest-agent'), error: nullable(z.object({ code: z.string(), message: z.string(), because: z.unknown() })), owed: z.array(z.string()),
  actor: z.string(), commandId: z.string(), traceparent: nullable(z.string()), parent: nullable(z.string()),
  members: nullable(z.array(z.object({ operationId: z.string(), vmId: nullable(z.string()) }))),
  counts: z.object({ pending: z.int(), running: z.int(), succeeded: z.int(), failed: z.int(), compensated: z.int() }).optional(),
  changedAt: nullable(time), position: nullable(z.int()),
}));

const shares = z.object({ total: z.int(), reserved: z.int(), free: z.int() });

export const NodeAnswer = named('Node', z.object({
  id: z.string(), name: z.string(), machineId: z.string(), status: z.enum(['joining', 'ready', 'silent', 'maintenance']), statusBecause: nullable(z.string()),
  description: nullable(z.looseObject({})), policy: z.looseObject({ accepting: z.boolean(), maintenance: z.boolean() }), session: z.int(), sessionStartedAt: nullable(time),
  silentSince: nullable(time), clockSkewMs: nullable(z.int()), removed: z.null(), capacity: nullable(z.object({ vcpus: shares, memoryMib: shares })), vms: z.int(),
  createdAt: time, changedAt: time, position: z.int(), version: z.int().describe('Its ETag'),
}));

export const NetworkAnswer = named('Network', z.looseObject({
  id: z.string(), networkId: z.string(), subnetId: z.string(), name: z.string(), kind: z.string(), cidr: z.string(), gateway: z.string(), prefix: z.int(), bridge: z.string(),
  reserved: z.array(z.string()), addresses: z.object({ usable: z.int(), leased: z.int(), reserved: z.int(), free: z.int() }), createdAt: time, version: nullable(z.int()).describe('Its ETag'),
}));

export const ImageAnswer = named('Image', z.looseObject({
  id: z.string(), name: z.string(), file: z.string(), format: ImageFormat, sha256: z.string(), sizeBytes: z.int(), minDiskGib: z.int(), minMemoryMib: z.int(), release: nullable(z.string()).optional().describe('What whoever made it calls this version'),
  uses: z.int().optional().describe('VMs and volumes whose disks began as it'), current: z.boolean().optional().describe('Of a family: whether VMs that name it get this version'), createdAt: nullable(time), version: nullable(z.int()).describe('Its ETag'),
}));

named('AcceptedImage', z.object({ operation: OperationAnswer, image: ImageAnswer.partial() }));

const files = z.object({ count: z.int(), first: z.array(z.string()) });

export const PoolAnswer = named('Pool', z.object({
  id: z.string(), name: z.string(), type: z.enum(['own', 'dir', 'shared']).describe('own: the one that its node began with'), path: nullable(z.string()), nodeIds: z.array(z.string()).describe('Those that see it'), nodeId: z.string(),
  desired: z.enum(['active', 'stopped']), status: z.enum(['creating', 'active', 'stopped', 'failed']),
  observed: z.array(z.object({ nodeId: z.string(), active: z.boolean(), capacityGib: z.int(), usedGib: z.int(), at: time })).describe('As each node saw it when that last was news; used is what the file system has given away'),
  capacityGib: z.int(), overcommitPercent: z.int(), fullPercent: z.int(), nearlyFull: z.boolean(), promisedGib: z.int().describe('Sum of the sizes of its volumes'), volumes: z.int(),
  found: nullable(z.object({ at: time, usedGib: z.int(), volumesGib: z.int(), unknown: files, missing: files })).describe('What the last refresh found'),
  operationId: nullable(z.string()), failure: nullable(z.object({ code: z.string(), message: z.string(), owed: z.array(z.string()) })), createdAt: time, position: z.int(), version: z.int().describe('Its ETag'),
}));

export const VolumeAnswer = named('Volume', z.object({
  id: z.string(), name: nullable(z.string()), system: z.boolean(), status: z.enum(['creating', 'attached', 'detached', 'failed', 'dirty', 'deleting']).describe('dirty: work on it was broken off, and its node has yet to see to it'), vmId: nullable(z.string()), poolId: z.string(), nodeId: z.string(),
  imageId: nullable(z.string()), sizeGib: z.int(), format: z.enum(['qcow2', 'raw']), operationId: nullable(z.string()).describe('What has it in hand'), deleteAt: nullable(time).describe('It is deleted then, unless a VM has it'),
  failure: nullable(z.object({ code: z.string(), message: z.string(), owed: z.array(z.string()) })), createdAt: time, changedAt: time, position: z.int(), version: z.int().describe('Its ETag'),
}));

const difference = z.object({ field: z.string(), where: z.enum(['running', 'defined']).optional().describe('The domain that runs, or what its next start finds'), expected: nullable(z.union([z.boolean(), z.number(), z.string()])), seen: nullable(z.union([z.boolean(), z.number(), z.string()])) });

export const DriftAnswer = named('Drift', z.object({
  id: z.string(), nodeId: z.string(), class: z.enum(['changed', 'missing', 'moved', 'duplicate', 'foreign', 'orphan-disk', 'disk-missing', 'disk-replaced', 'network']), subject: z.string(), vmId: nullable(z.string()), name: nullable(z.string()),
  differences: z.array(difference), foreign: nullable(z.looseObject({ uuid: z.string(), name: z.string(), obstacles: z.array(z.string()).describe('Why it cannot be adopted; empty when it can be') })), says: z.string(), explanation: z.string(),
  near: nullable(z.object({ seconds: z.int() })).describe('An operation of ours on the VM that began so long before; null: none within 5 minutes'), firstSeenAt: time, seenAt: time, nodeAt: nullable(time),
  acted: nullable(z.object({ action: z.enum(['adopt', 'revert', 'alert', 'ignore']), by: z.enum(['operator', 'policy']), actor: z.string(), operationId: z.string(), at: time })), position: z.int(), version: z.int().describe('Its ETag'),
}));
named('DriftPolicies', z.object({ items: z.array(z.looseObject({ class: z.string(), action: z.enum(['adopt', 'revert', 'alert', 'ignore']) })), next: z.null() }));

export const EventAnswer = named('Event', z.object({
  position: z.int(), type: z.string(), category: z.string(), subject: z.string(), version: z.int(), id: z.string(), data: z.looseObject({}), actor: z.string(), commandId: z.string(),
  causedBy: nullable(z.string()), operationId: nullable(z.string()), vmId: nullable(z.string()), traceId: nullable(z.string()), nodeId: nullable(z.string()), nodeAt: nullable(time), recordedAt: time,
}));

const page = <T extends z.ZodType>(item: T) => z.object({ items: z.array(item), next: nullable(z.string()).describe('The cursor of the next page; null: this is the last'), count: z.int().optional() });
named('VmPage', page(VmAnswer));
named('OperationPage', page(OperationAnswer));
named('NodePage', page(NodeAnswer));
named('NetworkPage', page(NetworkAnswer));
named('ImagePage', page(ImageAnswer));
named('PoolPage', page(PoolAnswer));
named('VolumePage', page(VolumeAnswer));
export const BackupAnswer = named('Backup', z.object({
  id: z.string(), vmId: z.string(), vmName: nullable(z.string()), status: z.enum(['taking', 'taken', 'deleting']), target: z.object({ targetId: z.string(), name: z.string() }), nodeId: z.string(),
  kind: nullable(z.enum(['full', 'incremental'])), because: nullable(z.string()).describe('Why it is of that kind'), parent: nullable(z.string()).describe('What it builds on'),
  frozen: nullable(z.boolean()).describe('Whether the guest held its file systems still for it'), bytes: z.int().describe('Of its own files'),
  disks: z.array(z.object({ unit: z.int(), volumeId: z.string(), sizeGib: z.int(), bytes: z.int(), sha256: z.string() })),
  scheduled: nullable(z.object({ policyId: z.string(), slot: time })),
  drill: nullable(z.object({ at: time, ok: z.boolean(), criterion: nullable(DrillCriterion), seconds: nullable(z.int()).describe('From when it was asked for to when it was known'), because: z.string(), operationId: z.string() })).describe('The last time that a machine was made of it to see whether it runs'),
  operationId: nullable(z.string()), requestedAt: time, takenAt: nullable(time), changedAt: time, position: z.int(), version: z.int().describe('Its ETag'),
}));
named('BackupPage', page(BackupAnswer));
export const BackupPolicyAnswer = named('BackupPolicy', z.object({
  id: z.string(), ...BackupPolicyWish.shape,
  drills: z.array(z.object({
    vmId: z.string(), dueSince: nullable(time).describe('A time for a drill has passed, and there is no result since: it waits, runs, or could not be had'),
    last: nullable(z.object({ backupId: z.string(), operationId: z.string(), begunAt: time, ok: nullable(z.boolean()).describe('null: it runs, or its operation says why there is no result'), because: nullable(z.string()) })),
  })).describe('Of each of its VMs, if it wants drills'),
  createdAt: time, changedAt: time, position: z.int(), version: z.int().describe('Its ETag') }));
named('BackupPolicyPage', page(BackupPolicyAnswer));
export const BootJobAnswer = named('BootJob', z.object({
  id: z.string(), ...BootJobWish.shape, revision: z.int(), builtIn: z.boolean().describe('It came with the platform'), system: z.boolean().describe('The platform uses it itself'),
  createdAt: nullable(time), changedAt: nullable(time), position: z.int(), version: z.int().describe('Its ETag'),
}));
named('BootJobPage', page(BootJobAnswer));
export const BootRunAnswer = named('BootRun', z.object({
  id: z.string(), vmId: z.string(), job: z.object({ id: z.string(), name: z.string(), revision: z.int(), system: z.boolean() }),
  status: z.enum(['pending', 'succeeded', 'failed', 'interrupted']).describe('interrupted: the guest went down in its middle, and does not begin it again'),
  exitCode: nullable(z.int()).describe('137 of one that took too long'), output: nullable(z.string()).describe('The end of what it printed; secret variables are left out'),
  requestedBy: z.string(), requestedAt: time, endedAt: nullable(time), position: z.int(),
}));
named('BootRunPage', page(BootRunAnswer));
named('AcceptedBootRuns', z.object({ operation: OperationAnswer, runs: z.array(z.object({ id: z.string(), vmId: z.string() })) }));
named('DriftPage', page(DriftAnswer));
named('EventPage', z.object({ items: z.array(EventAnswer), next: nullable(z.int()).describe('The position to go on behind'), head: z.int().optional() }));
named('AcceptedVm', z.object({ operation: OperationAnswer, vm: nullable(VmAnswer).optional(), vms: z.array(VmAnswer).optional().describe('With count: all of them') }));
named('Token', z.object({ id: z.string(), name: z.string(), issuedBy: z.string(), issuedAt: time, revokedAt: nullable(time), position: z.int(), version: z.int().describe('Its ETag') }));
const rehearsed = {
  events: z.array(z.object({ type: z.string(), category: z.string(), subject: z.string(), version: z.int(), data: z.looseObject({}) })).describe('What would be recorded at once, in order'),
  placement: z.looseObject({ nodeId: nullable(z.string()), poolId: nullable(z.string()) }).optional().describe('Of a new VM: where it would come now, with every node\'s score or reason; refused and because when nowhere'),
};
export const RehearsalAnswer = named('Rehearsal', z.object({
  dryRun: z.literal(true), version: z.int().describe('Of the stream after them'), ...rehearsed,
  members: z.array(z.object({ name: z.string(), vmId: z.string(), operationId: z.string(), version: z.int().optional(), events: rehearsed.events.optional(), placement: rehearsed.placement, problem: ProblemAnswer.optional() })).optional()
    .describe('Of a batch: each as if those before it were placed'),
  xml: nullable(z.string()).optional().describe('With expert devices: what would be different in the XML that libvirt is told, as lines that go and come; null when the node cannot be asked'),
}));
named('ScreenPasswordSet', z.object({ vm: VmAnswer, password: z.string().optional().describe('The one that was made, where none was given: it is kept nowhere') }));
named('AcceptedBootRun', z.object({ operation: OperationAnswer, vm: nullable(VmAnswer), runId: z.string() }));
named('AcceptedPassword', z.object({ operation: OperationAnswer, vm: nullable(VmAnswer), method: PasswordMethod, runId: z.string().optional().describe('With next-boot: what says how it went'), password: z.string().optional().describe('The one that was made, where none was given: it is kept nowhere') }));
named('IssuedToken', z.object({ id: z.string(), name: z.string(), token: z.string() }));
named('IssuedJoinToken', z.object({ id: z.string(), token: z.string(), expiresAt: time }));
const key = { id: z.string(), name: z.string(), publicKey: z.string(), fingerprint: z.string() };
const KeyAnswer = named('Key', z.object({ ...key, made: z.boolean().describe('Here, as a pair'), createdBy: z.string(), createdAt: time, position: z.int(), version: z.int().describe('Its ETag') }));
named('KeyPage', page(KeyAnswer));
named('RegisteredKey', z.object({ ...key, privateKey: z.string().optional().describe('Of a pair that was made, in OpenSSH\'s format: kept nowhere') }));
named('ConsoleOffer', z.object({ url: z.string().describe('Of a WebSocket'), token: z.string().describe('Lets one in, once'), expiresAt: time }));
named('JoinedNode', z.object({ nodeId: z.string(), natsJwt: z.string(), natsUrls: z.array(z.string()) }));
