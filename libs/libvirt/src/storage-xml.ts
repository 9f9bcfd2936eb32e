/** XML of storage pools and volumes, as far as an agent asks and says. `root` and `more` are for the rest. */
import { attributeOf, buildXml, bytesOf, childOf, childrenOf, element, parseXml, textOf, XmlError } from './xml.ts';
import type { XmlElement } from './xml.ts';

const textOrNone = (node: XmlElement | undefined): string | undefined => (node === undefined ? undefined : textOf(node));
const bytesOrNone = (node: XmlElement | undefined): number | undefined => (node === undefined ? undefined : bytesOf(node));

export interface PoolDescription {
  /** `dir`, `fs`, `netfs`, `logical`, `rbd`, `iscsi`, … */
  readonly type: string;
  readonly name: string;
  readonly uuid: string;
  /** Only of a pool that has been refreshed. */
  readonly capacityBytes: number | undefined;
  readonly allocationBytes: number | undefined;
  readonly availableBytes: number | undefined;
  /** Where volumes are on the node, of kinds that have such a place. */
  readonly path: string | undefined;
  readonly source: {
    readonly hosts: readonly { readonly name: string; readonly port: number | undefined }[];
    readonly directory: string | undefined;
    readonly devices: readonly string[];
    /** A volume group, an RBD pool, … */
    readonly name: string | undefined;
    readonly format: string | undefined;
  };
  readonly root: XmlElement;
}

/** Throws XmlError when it is not a pool. */
export function readPool(xml: string): PoolDescription {
  const root = parseXml(xml);
  if (root.name !== 'pool') throw new XmlError(`<${root.name}> is not a storage pool`);
  const source = childOf(root, 'source');
  return {
    type: root.attributes['type'] ?? '',
    name: textOf(childOf(root, 'name')),
    uuid: textOf(childOf(root, 'uuid')),
    capacityBytes: bytesOrNone(childOf(root, 'capacity')),
    allocationBytes: bytesOrNone(childOf(root, 'allocation')),
    availableBytes: bytesOrNone(childOf(root, 'available')),
    path: textOrNone(childOf(root, 'target', 'path')),
    source: {
      hosts: childrenOf(source, 'host').map((host) => ({ name: host.attributes['name'] ?? '', port: host.attributes['port'] === undefined ? undefined : Number(host.attributes['port']) })),
      directory: attributeOf(source, 'path', 'dir'),
      devices: childrenOf(source, 'device').map((device) => device.attributes['path'] ?? ''),
      name: textOrNone(childOf(source, 'name')),
      format: attributeOf(source, 'type', 'format'),
    },
    root,
  };
}

export interface PoolSpec {
  readonly type: 'dir' | 'fs' | 'netfs' | 'logical' | 'disk' | 'iscsi' | 'iscsi-direct' | 'rbd' | 'gluster' | 'zfs';
  readonly name: string;
  readonly uuid?: string;
  readonly source?: {
    readonly hosts?: readonly { readonly name: string; readonly port?: number }[];
    readonly directory?: string;
    readonly devices?: readonly string[];
    readonly name?: string;
    readonly format?: string;
    /** A secret of the daemon's, by UUID. */
    readonly auth?: { readonly type: 'ceph' | 'chap'; readonly username: string; readonly secretUuid: string };
    readonly more?: readonly XmlElement[];
  };
  /** The folder of `dir`, where the others are mounted. */
  readonly path?: string;
  /** Octal, as `0711`. */
  readonly permissions?: { readonly mode: string; readonly owner?: number; readonly group?: number };
  readonly more?: readonly XmlElement[];
}

/** Storage pool XML. Throws XmlError for what XML cannot hold. */
export function buildPool(spec: PoolSpec): string {
  const { source, permissions } = spec;
  return buildXml(
    element(
      'pool',
      { type: spec.type },
      element('name', {}, spec.name),
      spec.uuid === undefined ? undefined : element('uuid', {}, spec.uuid),
      source === undefined
        ? undefined
        : element(
            'source',
            {},
            ...(source.hosts ?? []).map((host) => element('host', { name: host.name, port: host.port })),
            ...(source.devices ?? []).map((path) => element('device', { path })),
            source.directory === undefined ? undefined : element('dir', { path: source.directory }),
            source.name === undefined ? undefined : element('name', {}, source.name),
            source.format === undefined ? undefined : element('format', { type: source.format }),
            source.auth === undefined ? undefined : element('auth', { type: source.auth.type, username: source.auth.username }, element('secret', { uuid: source.auth.secretUuid })),
            ...(source.more ?? []),
          ),
      spec.path === undefined
        ? undefined
        : element(
            'target',
            {},
            element('path', {}, spec.path),
            permissions === undefined
              ? undefined
              : element(
                  'permissions',
                  {},
                  element('mode', {}, permissions.mode),
                  permissions.owner === undefined ? undefined : element('owner', {}, permissions.owner),
                  permissions.group === undefined ? undefined : element('group', {}, permissions.group),
                ),
          ),
      ...(spec.more ?? []),
    ),
  );
}

export interface VolumeDescription {
  readonly name: string;
  readonly key: string | undefined;
  /** What a guest sees. */
  readonly capacityBytes: number;
  /** What it takes on the node. */
  readonly allocationBytes: number | undefined;
  readonly path: string | undefined;
  readonly format: string | undefined;
  /** Of qcow2: `1.1` has bitmaps, `0.10` has not. */
  readonly compat: string | undefined;
  readonly backing: { readonly path: string; readonly format: string | undefined } | undefined;
  readonly root: XmlElement;
}

/** Throws XmlError when it is not a volume. */
export function readVolume(xml: string): VolumeDescription {
  const root = parseXml(xml);
  if (root.name !== 'volume') throw new XmlError(`<${root.name}> is not a storage volume`);
  const backing = childOf(root, 'backingStore');
  return {
    name: textOf(childOf(root, 'name')),
    key: textOrNone(childOf(root, 'key')),
    capacityBytes: bytesOf(childOf(root, 'capacity')),
    allocationBytes: bytesOrNone(childOf(root, 'allocation')),
    path: textOrNone(childOf(root, 'target', 'path')),
    format: attributeOf(root, 'type', 'target', 'format'),
    compat: textOrNone(childOf(root, 'target', 'compat')),
    backing: backing === undefined ? undefined : { path: textOf(childOf(backing, 'path')), format: attributeOf(backing, 'type', 'format') },
    root,
  };
}

export interface VolumeSpec {
  readonly name: string;
  readonly capacityBytes: number;
  /** What is taken at once; left out: as much as the format needs for `raw` (all of it). */
  readonly allocationBytes?: number;
  readonly format?: string;
  /** Of qcow2; `1.1` if left out, because the daemon's own default has no bitmaps. */
  readonly compat?: string;
  readonly backing?: { readonly path: string; readonly format: string };
  readonly more?: readonly XmlElement[];
}

/** Storage volume XML. Throws XmlError for what XML cannot hold. */
export function buildVolume(spec: VolumeSpec): string {
  const compat = spec.compat ?? (spec.format === 'qcow2' ? '1.1' : undefined);
  return buildXml(
    element(
      'volume',
      {},
      element('name', {}, spec.name),
      element('capacity', { unit: 'bytes' }, spec.capacityBytes),
      spec.allocationBytes === undefined ? undefined : element('allocation', { unit: 'bytes' }, spec.allocationBytes),
      // The schema wants it, even empty.
      element('target', {}, spec.format === undefined ? undefined : element('format', { type: spec.format }), compat === undefined ? undefined : element('compat', {}, compat)),
      spec.backing === undefined ? undefined : element('backingStore', {}, element('path', {}, spec.backing.path), element('format', { type: spec.backing.format })),
      ...(spec.more ?? []),
    ),
  );
}
