/** XML of snapshots, checkpoints and backups of domains, as far as an agent asks and says. `root` and `more` are for the rest. */
import { attributeOf, buildXml, childOf, childrenOf, element, parseXml, textOf, XmlError } from './xml.ts';
import type { XmlElement } from './xml.ts';

const textOrNone = (node: XmlElement | undefined): string | undefined => (node === undefined ? undefined : textOf(node));

interface Point {
  readonly name: string;
  readonly description: string | undefined;
  readonly parent: string | undefined;
  /** Seconds since 1970. */
  readonly createdAt: number;
  readonly root: XmlElement;
}

function readPoint(xml: string, kind: 'domainsnapshot' | 'domaincheckpoint'): Point {
  const root = parseXml(xml);
  if (root.name !== kind) throw new XmlError(`<${root.name}> is not a ${kind}`);
  return {
    name: textOf(childOf(root, 'name')),
    description: textOrNone(childOf(root, 'description')),
    parent: textOrNone(childOf(root, 'parent', 'name')),
    createdAt: Number(textOf(childOf(root, 'creationTime')) || 0),
    root,
  };
}

export interface SnapshotDescription extends Point {
  /** The domain's state: `running`, `shutoff`, `disk-snapshot`, … */
  readonly state: string;
  /** Where memory is kept: in the image (`internal`), in a file, or not at all (`no`). */
  readonly memory: string;
  readonly disks: readonly {
    readonly target: string;
    /** `internal`, `external`, `no`. */
    readonly kept: string;
    /** The overlay of an external one. */
    readonly path: string | undefined;
  }[];
}

/** Throws XmlError when it is not a snapshot. */
export function readSnapshot(xml: string): SnapshotDescription {
  const point = readPoint(xml, 'domainsnapshot');
  return {
    ...point,
    state: textOf(childOf(point.root, 'state')),
    memory: attributeOf(point.root, 'snapshot', 'memory') ?? 'no',
    disks: childrenOf(childOf(point.root, 'disks'), 'disk').map((disk) => ({
      target: disk.attributes['name'] ?? '',
      kept: disk.attributes['snapshot'] ?? '',
      path: attributeOf(disk, 'file', 'source') ?? attributeOf(disk, 'dev', 'source'),
    })),
  };
}

export interface SnapshotSpec {
  readonly name?: string;
  readonly description?: string;
  /** `file` for an external one. Left out: as libvirt chooses. */
  readonly memory?: 'no' | 'internal' | { readonly file: string };
  /** Disks that are not named are treated as libvirt chooses: name all. */
  readonly disks?: readonly { readonly target: string; readonly kept: 'no' | 'internal' | { readonly file: string; readonly format?: string } }[];
  readonly more?: readonly XmlElement[];
}

/** Snapshot XML. Throws XmlError for what XML cannot hold. */
export function buildSnapshot(spec: SnapshotSpec): string {
  const { memory } = spec;
  return buildXml(
    element(
      'domainsnapshot',
      {},
      spec.name === undefined ? undefined : element('name', {}, spec.name),
      spec.description === undefined ? undefined : element('description', {}, spec.description),
      memory === undefined ? undefined : typeof memory === 'string' ? element('memory', { snapshot: memory }) : element('memory', { snapshot: 'external', file: memory.file }),
      spec.disks === undefined
        ? undefined
        : element(
            'disks',
            {},
            ...spec.disks.map(({ target, kept }) =>
              typeof kept === 'string'
                ? element('disk', { name: target, snapshot: kept })
                : element('disk', { name: target, snapshot: 'external', type: 'file' }, element('driver', { type: kept.format ?? 'qcow2' }), element('source', { file: kept.file })),
            ),
          ),
      ...(spec.more ?? []),
    ),
  );
}

export interface CheckpointDescription extends Point {
  readonly disks: readonly {
    readonly target: string;
    /** Of the image, where what has changed since is noted. None: not noted for this disk. */
    readonly bitmap: string | undefined;
    /** How much has been written since, where it was asked for (`size`). */
    readonly sizeBytes: number | undefined;
  }[];
}

/** Throws XmlError when it is not a checkpoint. */
export function readCheckpoint(xml: string): CheckpointDescription {
  const point = readPoint(xml, 'domaincheckpoint');
  return {
    ...point,
    disks: childrenOf(childOf(point.root, 'disks'), 'disk').map((disk) => ({
      target: disk.attributes['name'] ?? '',
      bitmap: disk.attributes['checkpoint'] === 'bitmap' ? (disk.attributes['bitmap'] ?? point.name) : undefined,
      sizeBytes: disk.attributes['size'] === undefined ? undefined : Number(disk.attributes['size']),
    })),
  };
}

export interface CheckpointSpec {
  readonly name: string;
  readonly description?: string;
  /** All disks that can, where left out. */
  readonly disks?: readonly { readonly target: string; readonly noted: boolean }[];
  readonly more?: readonly XmlElement[];
}

/** Checkpoint XML. Throws XmlError for what XML cannot hold. */
export function buildCheckpoint(spec: CheckpointSpec): string {
  return buildXml(
    element(
      'domaincheckpoint',
      {},
      element('name', {}, spec.name),
      spec.description === undefined ? undefined : element('description', {}, spec.description),
      spec.disks === undefined ? undefined : element('disks', {}, ...spec.disks.map((disk) => element('disk', { name: disk.target, checkpoint: disk.noted ? 'bitmap' : 'no' }))),
      ...(spec.more ?? []),
    ),
  );
}

export interface BackupSpec {
  /** Only what has changed since this checkpoint. */
  readonly incremental?: string;
  /** QEMU writes files (`push`), or gives the data to whoever asks at an NBD server (`pull`). */
  readonly mode: 'push' | { readonly socket: string };
  /** Disks that are not named are backed up as well: name all. `file`: the target, or with `pull` a scratch file. */
  readonly disks: readonly { readonly target: string; readonly file?: string; readonly format?: string }[];
}

/** Backup XML. Throws XmlError for what XML cannot hold. */
export function buildBackup(spec: BackupSpec): string {
  const { mode } = spec;
  const pull = mode === 'push' ? undefined : mode;
  return buildXml(
    element(
      'domainbackup',
      { mode: pull === undefined ? 'push' : 'pull' },
      spec.incremental === undefined ? undefined : element('incremental', {}, spec.incremental),
      pull === undefined ? undefined : element('server', { transport: 'unix', socket: pull.socket }),
      element(
        'disks',
        {},
        ...spec.disks.map(({ target, file, format }) =>
          file === undefined
            ? element('disk', { name: target, backup: 'no' })
            : element(
                'disk',
                { name: target, backup: 'yes', type: 'file' },
                pull === undefined && format !== undefined ? element('driver', { type: format }) : undefined,
                element(pull === undefined ? 'target' : 'scratch', { file }),
              ),
        ),
      ),
    ),
  );
}
