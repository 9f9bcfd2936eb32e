import { z } from 'zod';

/*
 * An id says what it is: kind, underscore, 32 hexadecimal digits of a UUID. It holds neither dot nor dash,
 * so it fits into a NATS subject and a stream's category ends at the last dash. The template types keep
 * one kind from being passed for another.
 */
const idOf = <K extends string>(kind: K) => z.templateLiteral([`${kind}_`, z.string().regex(/^[0-9a-f]{32}$/)]);

export const VmId = idOf('vm');
export type VmId = `vm_${string}`;
export const NodeId = idOf('node');
export type NodeId = `node_${string}`;
export const NetworkId = idOf('network');
export type NetworkId = `network_${string}`;
export const SubnetId = idOf('subnet');
export type SubnetId = `subnet_${string}`;
export const PoolId = idOf('pool');
export type PoolId = `pool_${string}`;
export const VolumeId = idOf('volume');
export type VolumeId = `volume_${string}`;
export const SnapshotId = idOf('snapshot');
export type SnapshotId = `snapshot_${string}`;
export const ImageId = idOf('image');
export type ImageId = `image_${string}`;
export const BackupId = idOf('backup');
export type BackupId = `backup_${string}`;
export const BackupTargetId = idOf('target');
export type BackupTargetId = `target_${string}`;
export const BackupPolicyId = idOf('policy');
export type BackupPolicyId = `policy_${string}`;
export const UploadId = idOf('upload');
export type UploadId = `upload_${string}`;
export const OperationId = idOf('op');
export type OperationId = `op_${string}`;
export const TokenId = idOf('token');
export type TokenId = `token_${string}`;
export const SshKeyId = idOf('key');
export type SshKeyId = `key_${string}`;
export const BootJobId = idOf('job');
export type BootJobId = `job_${string}`;
export const BootRunId = idOf('run');
export type BootRunId = `run_${string}`;
export const DriftId = idOf('drift');
export type DriftId = `drift_${string}`;
export const ConsoleId = idOf('console');
export type ConsoleId = `console_${string}`;

/** The id of a command: a UUID, version 8 when it was made from a key, else version 7. */
export const CommandId = z.uuid();

/** 'vm' and a UUID in any spelling give 'vm_' and its 32 digits. */
export const idFrom = <K extends string>(kind: K, uuid: string): `${K}_${string}` => `${kind}_${uuid.replaceAll('-', '').toLowerCase()}`;

/** The UUID of an id in the usual spelling, for hypervisors that want one. */
export const uuidOf = (id: string): string => {
  const digits = id.slice(id.lastIndexOf('_') + 1);
  return `${digits.slice(0, 8)}-${digits.slice(8, 12)}-${digits.slice(12, 16)}-${digits.slice(16, 20)}-${digits.slice(20)}`;
};

/** Streams are named '<category>-<id>'; the id holds no dash, so the category ends at the last one. */
export const streamOf = (category: string, id: string): string => `${category}-${id}`;
export const categoryOf = (stream: string): string => stream.slice(0, stream.lastIndexOf('-'));
export const idOfStream = (stream: string): string => stream.slice(stream.lastIndexOf('-') + 1);
