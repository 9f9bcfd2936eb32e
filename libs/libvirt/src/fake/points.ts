/*
 * Snapshots and checkpoints: points of a domain's life, in a tree. An external snapshot puts an overlay on
 * each disk and remembers; an internal one keeps the state itself and can be returned to, which libvirt 9.0
 * does not do with external ones. Deleting an external snapshot merges its overlay, by a block job.
 */
import { attributeOf, childOf, childrenOf, element, textOf } from '../xml.ts';
import type { XmlElement } from '../xml.ts';
import { chainOf, setChain } from './block.ts';
import { parsed, printed } from './definition.ts';
import { agentOf } from './guest.ts';
import { run, start, stop } from './life.ts';
import type { FakeDomain, FakeNode, PointOfDomain } from './node.ts';
import { configUnsupported, invalidArgument, noCheckpoint, noSnapshot, operationFailed, operationInvalid, operationUnsupported } from './refusal.ts';
import { fileSizeOrUsual, storageOf } from './storage.ts';

type Points = Map<string, PointOfDomain>;

export function snapshotOf(domain: FakeDomain, name: string): PointOfDomain {
  const point = domain.snapshots?.get(name);
  if (point === undefined) throw noSnapshot(`no domain snapshot with matching name '${name}'`);
  return point;
}
export function checkpointOf(domain: FakeDomain, name: string): PointOfDomain {
  const point = domain.checkpoints?.get(name);
  if (point === undefined) throw noCheckpoint(`no domain checkpoint with matching name '${name}'`);
  return point;
}

export function childrenOfPoint(points: Points | undefined, name: string, descendants: boolean): PointOfDomain[] {
  const direct = [...(points?.values() ?? [])].filter((point) => point.parent === name);
  return descendants ? direct.flatMap((point) => [point, ...childrenOfPoint(points, point.name, true)]) : direct;
}

export function filtered(points: Points | undefined, among: readonly PointOfDomain[], filter: readonly string[], rootsMeant: boolean): PointOfDomain[] {
  const has = (word: string) => filter.includes(word);
  return among.filter((point) => {
    const leaf = ![...(points?.values() ?? [])].some((other) => other.parent === point.name);
    if (rootsMeant && has('roots') && point.parent !== undefined) return false;
    if (has('leaves') !== has('noLeaves') && has('leaves') !== leaf) return false;
    const state = point.state === 'disk-snapshot' ? 'diskOnly' : point.state === 'shutoff' ? 'inactive' : 'active';
    const states = ['diskOnly', 'inactive', 'active'].filter(has);
    if (states.length > 0 && !states.includes(state)) return false;
    if (has('internal') !== has('external') && has('external') !== point.external) return false;
    // Nothing here is without metadata.
    return !(has('noMetadata') && !has('metadata'));
  });
}

export function createSnapshot(node: FakeNode, domain: FakeDomain, xml: string, flags: readonly string[]): PointOfDomain {
  const has = (word: string) => flags.includes(word);
  const request = parsed(xml, 'domainsnapshot');
  const name = textOf(childOf(request, 'name')) || String(Math.floor(node.clock.now() / 1_000));
  const points = (domain.snapshots ??= new Map<string, PointOfDomain>());
  const createdAt = has('redefine') ? Number(textOf(childOf(request, 'creationTime')) || 0) : Math.floor(node.clock.now() / 1_000);
  const taken = () => {
    if (points.has(name) && !has('redefine')) throw operationFailed(`domain moment ${name} already exists`, 'domainConfiguration');
  };
  if (name.includes('/')) throw invalidArgument(`invalid snapshot name '${name}': name can't contain '/'`);
  if (has('quiesce') && !has('diskOnly')) throw invalidArgument("Flag 'VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE' requires flag 'VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY'");
  const listed = childrenOf(childOf(request, 'disks'), 'disk');
  for (const one of listed) if (!domain.facts.disks.some((disk) => disk.target === one.attributes['name'] || disk.chain[0] === one.attributes['name'])) throw configUnsupported(`no disk named '${one.attributes['name']}'`, 'snapshot');
  const memory = childOf(request, 'memory')?.attributes['snapshot'];
  const disks = domain.facts.disks.filter((disk) => disk.device === 'disk' && disk.chain.length > 0 && !disk.readOnly);
  const external = has('diskOnly') || memory === 'external' || listed.some((one) => one.attributes['snapshot'] === 'external');
  const definition = domain.definition;
  const state = has('redefine') ? (textOf(childOf(request, 'state')) as PointOfDomain['state']) : has('diskOnly') ? 'disk-snapshot' : domain.state === 'running' ? 'running' : domain.active ? 'paused' : 'shutoff';
  const chosen: XmlElement[] = [];
  if (external && !has('redefine')) {
    const overlays = disks.flatMap((disk) => {
      const said = listed.find((one) => one.attributes['name'] === disk.target || one.attributes['name'] === disk.chain[0]);
      if (said?.attributes['snapshot'] === 'no' || (said === undefined && listed.length > 0 && !has('diskOnly'))) {
        chosen.push(element('disk', { name: disk.target, snapshot: 'no' }));
        return [];
      }
      const base = disk.chain[0] as string;
      const path = attributeOf(said, 'file', 'source') ?? `${base.replace(/\.[^./]*$/, '')}.${name}`;
      if (!has('reuseExternal') && storageOf(node).files.has(path)) throw configUnsupported(`external snapshot file for disk ${disk.target} already exists and is not a block device: ${path}`);
      chosen.push(element('disk', { name: disk.target, snapshot: 'external', type: 'file' }, element('driver', { type: 'qcow2' }), element('source', { file: path })));
      return [{ target: disk.target, path }];
    });
    if (overlays.length === 0) throw configUnsupported('nothing selected for snapshot');
    taken();
    if (has('quiesce')) agentOf(domain);
    for (const { target, path } of overlays) {
      const chain = chainOf(node, domain, target);
      storageOf(node).files.set(path, { capacity: fileSizeOrUsual(node, chain[0]?.path).capacity, allocation: 200_704 });
      setChain(node, domain, target, [{ path, format: 'qcow2' }, ...chain]);
    }
  } else if (!external) {
    taken();
    for (const disk of disks) if (disk.format !== 'qcow2') throw configUnsupported(`internal snapshot for disk ${disk.target} unsupported for storage type ${disk.format}`);
    for (const disk of domain.facts.disks) chosen.push(element('disk', { name: disk.target, snapshot: disks.includes(disk) ? 'internal' : 'no' }));
    if (domain.state === 'running' && !has('redefine')) {
      node.lifecycle(domain, 'suspended', 'paused');
      node.lifecycle(domain, 'resumed', 'unpaused');
    }
  }
  const parent = has('redefine') ? textOf(childOf(request, 'parent', 'name')) || undefined : domain.snapshotCurrent;
  const description = childOf(request, 'description');
  const point: PointOfDomain = {
    name, parent, createdAt, definition, state, external,
    root: element(
      'domainsnapshot',
      {},
      element('name', {}, name),
      description,
      element('state', {}, state),
      parent === undefined ? undefined : element('parent', {}, element('name', {}, parent)),
      element('creationTime', {}, createdAt),
      element('memory', { snapshot: external || state === 'shutoff' ? (memory === 'external' ? 'external' : 'no') : 'internal' }),
      element('disks', {}, ...(has('redefine') ? listed : chosen)),
    ),
  };
  if (has('noMetadata')) return point;
  points.set(name, point);
  if (!has('redefine') || has('current')) domain.snapshotCurrent = name;
  if (has('halt') && domain.active) stop(node, domain, 'fromSnapshot', 'fromSnapshot');
  return point;
}

export function pointXml(point: PointOfDomain, withDomain: boolean): string {
  if (!withDomain) return printed(point.root);
  return printed({ ...point.root, children: [...point.root.children, parsed(point.definition.xml, 'domain')] });
}

export function revert(node: FakeNode, domain: FakeDomain, point: PointOfDomain, flags: readonly string[]): void {
  if (point.external) throw configUnsupported('revert to external snapshot not supported yet');
  const runs = point.state === 'running' || point.state === 'paused' || flags.includes('running') || flags.includes('paused');
  if (domain.persistent === undefined && !runs) throw operationInvalid('transient domain needs to request run or pause to revert to inactive snapshot');
  const persistent = domain.persistent;
  if (domain.active) {
    // Its definition must outlive the stop.
    domain.persistent = point.definition;
    stop(node, domain, 'fromSnapshot', 'fromSnapshot');
  }
  domain.persistent = persistent === undefined ? undefined : point.definition;
  domain.snapshotCurrent = point.name;
  if (!runs) return;
  const paused = flags.includes('paused') || (point.state === 'paused' && !flags.includes('running'));
  if (domain.persistent !== undefined) {
    start(node, domain, { because: 'fromSnapshot', paused });
    return;
  }
  run(node, domain, point.definition);
  node.setState(domain, paused ? 'paused' : 'running', 'fromSnapshot');
  node.lifecycle(domain, 'started', 'fromSnapshot');
}

function forget(points: Points, point: PointOfDomain): void {
  points.delete(point.name);
  for (const child of [...points.values()]) {
    if (child.parent !== point.name) continue;
    const children = child.root.children.flatMap((one) => (typeof one !== 'string' && one.name === 'parent' ? (point.parent === undefined ? [] : [element('parent', {}, element('name', {}, point.parent))]) : [one]));
    // A Map keeps its order when a key is set again.
    points.set(child.name, { ...child, parent: point.parent, root: { ...child.root, children } });
  }
}

export function deleteSnapshot(node: FakeNode, domain: FakeDomain, point: PointOfDomain, flags: readonly string[]): void {
  const points = domain.snapshots as Points;
  const children = flags.includes('children') || flags.includes('childrenOnly') ? childrenOfPoint(points, point.name, true) : [];
  const doomed = [...children, ...(flags.includes('childrenOnly') ? [] : [point])];
  if (!flags.includes('metadataOnly')) {
    for (const one of doomed) {
      if (!one.external) continue;
      for (const disk of childrenOf(childOf(one.root, 'disks'), 'disk')) {
        const overlay = attributeOf(disk, 'file', 'source');
        const target = disk.attributes['name'] as string;
        const chain = chainOf(node, domain, target);
        const at = chain.findIndex((image) => image.path === overlay);
        if (overlay === undefined || at === -1) continue;
        // What is in the overlay goes into the image below it.
        setChain(node, domain, target, chain.filter((_, index) => index !== at));
        storageOf(node).files.delete(overlay);
        if (domain.active) {
          const path = domain.facts.disks.find((other) => other.target === target)?.chain[0] ?? '';
          const job = at === 0 ? ('activeCommit' as const) : ('commit' as const);
          node.emitDomain('blockJobOfPath', domain, { path, job, status: 'completed' });
          node.emitDomain('blockJob', domain, { target, job, status: 'completed' });
        }
      }
    }
  }
  for (const one of doomed) forget(points, one);
  if (doomed.some((one) => one.name === domain.snapshotCurrent)) domain.snapshotCurrent = flags.includes('childrenOnly') ? point.name : point.parent;
}

export function createCheckpoint(node: FakeNode, domain: FakeDomain, xml: string, flags: readonly string[]): PointOfDomain {
  const request = parsed(xml, 'domaincheckpoint');
  const redefine = flags.includes('redefine');
  if (!domain.active && !redefine) throw operationUnsupported('cannot create checkpoint for inactive domain');
  if (flags.includes('quiesce')) agentOf(domain);
  const name = textOf(childOf(request, 'name')) || String(Math.floor(node.clock.now() / 1_000));
  const points = (domain.checkpoints ??= new Map<string, PointOfDomain>());
  if (points.has(name) && !redefine) throw operationFailed(`domain moment ${name} already exists`, 'domainConfiguration');
  const listed = childrenOf(childOf(request, 'disks'), 'disk');
  for (const one of listed) if (!domain.facts.disks.some((disk) => disk.target === one.attributes['name'])) throw configUnsupported(`no disk named '${one.attributes['name']}'`, 'checkpoint');
  const chosen = domain.facts.disks
    .filter((disk) => disk.device === 'disk')
    .map((disk) => {
      const said = listed.find((one) => one.attributes['name'] === disk.target);
      const no = said?.attributes['checkpoint'] === 'no' || (said === undefined && listed.length > 0) || disk.chain.length === 0;
      if (!no && disk.format !== 'qcow2') throw configUnsupported(`checkpoint for disk ${disk.target} unsupported for storage type ${disk.format}`);
      return element('disk', { name: disk.target, checkpoint: no ? 'no' : 'bitmap', bitmap: no ? undefined : (said?.attributes['bitmap'] ?? name) });
    });
  const parent = redefine ? textOf(childOf(request, 'parent', 'name')) || undefined : domain.checkpointCurrent;
  const createdAt = redefine ? Number(textOf(childOf(request, 'creationTime')) || 0) : Math.floor(node.clock.now() / 1_000);
  const point: PointOfDomain = {
    name, parent, createdAt, definition: domain.definition, state: 'running', external: false,
    root: element(
      'domaincheckpoint',
      {},
      element('name', {}, name),
      childOf(request, 'description'),
      parent === undefined ? undefined : element('parent', {}, element('name', {}, parent)),
      element('creationTime', {}, createdAt),
      element('disks', {}, ...chosen),
    ),
  };
  points.set(name, point);
  domain.checkpointCurrent = name;
  return point;
}

export function deleteCheckpoint(domain: FakeDomain, point: PointOfDomain, flags: readonly string[]): void {
  const points = domain.checkpoints as Points;
  const children = flags.includes('children') || flags.includes('childrenOnly') ? childrenOfPoint(points, point.name, true) : [];
  const doomed = [...children, ...(flags.includes('childrenOnly') ? [] : [point])];
  for (const one of doomed) forget(points, one);
  if (doomed.some((one) => one.name === domain.checkpointCurrent)) domain.checkpointCurrent = flags.includes('childrenOnly') ? point.name : point.parent;
}
