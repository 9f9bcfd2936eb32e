/*
 * Chains of images, and the jobs that shorten, copy or save them. A job's progress follows from the clock;
 * what it does to the chain happens when it ends, which libvirt tells with two events: by the path of the
 * image, and by the disk's name.
 */
import { attributeOf, childOf, childrenOf, element, textOf } from '../xml.ts';
import type { XmlElement } from '../xml.ts';
import { withAttributes, withChild } from './definition.ts';
import type { DiskFacts } from './definition.ts';
import type { BlockJob, FakeDomain, FakeNode } from './node.ts';
import { blockCopyActive, invalidArgument, operationInvalid, operationUnsupported } from './refusal.ts';
import { fileSizeOrUsual, storageOf } from './storage.ts';

export interface Image {
  readonly path: string;
  readonly format: string;
}

/** A disk by its name or by the path of its image. */
export function diskOf(domain: FakeDomain, name: string): DiskFacts {
  const disk = domain.facts.disks.find((one) => one.target === name || one.chain[0] === name);
  if (disk === undefined) throw invalidArgument(`invalid path ${name} not assigned to domain`);
  return disk;
}
/** For jobs, of which libvirt says it in other words. */
function diskForJob(domain: FakeDomain, name: string): DiskFacts {
  const disk = domain.facts.disks.find((one) => one.target === name || one.chain[0] === name);
  if (disk === undefined) throw invalidArgument(`No device found for specified path`);
  return disk;
}

const diskIn = (root: XmlElement, target: string): XmlElement | undefined => childrenOf(childOf(root, 'devices'), 'disk').find((disk) => attributeOf(disk, 'dev', 'target') === target);

export function chainOf(node: FakeNode, domain: FakeDomain, target: string): Image[] {
  const images: Image[] = [];
  const disk = diskIn(node.treeOf(domain, domain.active ? 'live' : 'config'), target);
  let at: XmlElement | undefined = disk;
  for (let depth = 0; at !== undefined && depth < 200; depth += 1) {
    const path = attributeOf(at, 'file', 'source');
    if (path === undefined) break;
    images.push({ path, format: attributeOf(at, 'type', depth === 0 ? 'driver' : 'format') ?? 'raw' });
    at = childOf(at, 'backingStore');
  }
  return images;
}

const backing = ([top, ...below]: readonly Image[], index: number, live: boolean): XmlElement =>
  top === undefined
    ? element('backingStore')
    : element('backingStore', { type: 'file', index: live ? index : undefined }, element('format', { type: top.format }), element('source', { file: top.path }), backing(below, index + 1, live));

/** A domain that starts uses what its files stand on, whether its definition names that or not. */
export function findChains(node: FakeNode, domain: FakeDomain): void {
  const { files } = storageOf(node);
  for (const { target, chain: { length } } of domain.facts.disks) {
    const chain = chainOf(node, domain, target);
    for (let at = chain.at(-1); at !== undefined && chain.length < 200; at = files.get(at.path)?.backing) if (at !== chain.at(-1)) chain.push(at);
    if (chain.length > length) setChain(node, domain, target, chain, ['live']);
  }
}

/** The disk's chain is another one now, for what runs and for what will start. */
export function setChain(node: FakeNode, domain: FakeDomain, target: string, chain: readonly Image[], those?: readonly ('live' | 'config')[]): void {
  const [top, ...below] = chain;
  if (top === undefined) return;
  for (const [at, image] of chain.slice(0, -1).entries()) {
    const file = storageOf(node).files.get(image.path);
    if (file !== undefined) file.backing = chain[at + 1];
  }
  for (const which of those ?? [...(domain.active ? (['live'] as const) : []), ...(domain.persistent === undefined ? [] : (['config'] as const))]) {
    const root = node.treeOf(domain, which);
    const disk = diskIn(root, target);
    if (disk === undefined) continue;
    const live = which === 'live';
    const driver = withAttributes(childOf(disk, 'driver') ?? element('driver', { name: 'qemu' }), { type: top.format });
    const source = element('source', { file: top.path, index: live ? 1 : undefined });
    const changed = { ...withChild(withChild(withChild(disk, 'driver', driver), 'source', source), 'backingStore', undefined) };
    const withBacking = { ...changed, children: changed.children.flatMap((one) => (typeof one !== 'string' && one.name === 'source' && (live || below.length > 0) ? [one, backing(below, 2, live)] : [one])) };
    const devices = childOf(root, 'devices') as XmlElement;
    node.setTree(domain, which, withChild(root, 'devices', { ...devices, children: devices.children.map((one) => (one === disk ? withBacking : one)) }));
  }
}

function tell(node: FakeNode, domain: FakeDomain, job: BlockJob, status: 'completed' | 'failed' | 'canceled' | 'ready', path = job.path): void {
  node.emitDomain('blockJobOfPath', domain, { path, job: job.type, status });
  node.emitDomain('blockJob', domain, { target: job.target, job: job.type, status });
}

interface JobPlan {
  readonly type: BlockJob['type'];
  /** Ends only when the caller says so. */
  readonly staysReady: boolean;
  readonly bandwidth?: number;
  readonly finish: () => void;
}

function startJob(node: FakeNode, domain: FakeDomain, disk: DiskFacts, plan: JobPlan): BlockJob {
  const jobs = (domain.blockJobs ??= new Map<string, BlockJob>());
  if (jobs.has(disk.target)) throw blockCopyActive(`disk '${disk.target}' already in active block job`);
  const path = disk.chain[0] ?? '';
  const job: BlockJob = {
    type: plan.type, target: disk.target, path, startedAt: node.clock.now(), end: fileSizeOrUsual(node, path).allocation,
    bandwidth: plan.bandwidth ?? 0, ready: false, finish: plan.finish, cancel: () => {}, whenOver: [],
  };
  jobs.set(disk.target, job);
  job.cancel = node.clock.after(node.jobMs, () => {
    if (plan.staysReady) {
      job.ready = true;
      tell(node, domain, job, 'ready');
      return;
    }
    endJob(node, domain, job, 'completed');
  });
  return job;
}

export function endJob(node: FakeNode, domain: FakeDomain, job: BlockJob, status: 'completed' | 'canceled'): void {
  job.cancel();
  domain.blockJobs?.delete(job.target);
  if (status === 'completed') job.finish();
  // The path is that of the image that is in use now.
  tell(node, domain, job, status, domain.facts.disks.find((one) => one.target === job.target)?.chain[0] ?? job.path);
  for (const over of job.whenOver) over();
}

function position(chain: readonly Image[], path: string | null | undefined, target: string, otherwise: number): number {
  if (path === null || path === undefined || path === '') return otherwise;
  const indexed = /^\w+\[(\d+)\]$/.exec(path);
  // vda[1] is the image below the one in use.
  const at = indexed === null ? chain.findIndex((image) => image.path === path) : Number(indexed[1]) - 1;
  if (at < 0 || at >= chain.length) throw invalidArgument(`could not find image '${path}' in chain for '${target}'`);
  return at;
}

export function blockCommit(node: FakeNode, domain: FakeDomain, args: { readonly disk: string; readonly base: string | null; readonly top: string | null; readonly bandwidth: number; readonly flags: readonly string[] }): void {
  const disk = diskForJob(domain, args.disk);
  const chain = chainOf(node, domain, disk.target);
  const top = position(chain, args.top, disk.target, 0);
  const base = position(chain, args.base, disk.target, args.flags.includes('shallow') ? top + 1 : chain.length - 1);
  const active = top === 0;
  if (active && !args.flags.includes('active')) throw invalidArgument('commit of \'' + disk.target + '\' active layer requires active flag');
  if (!active && args.flags.includes('active')) throw invalidArgument(`active commit requested but '${chain[top]?.path}' is not active`);
  if (base <= top || base >= chain.length) throw invalidArgument(`top '${chain[top]?.path}' in chain for '${disk.target}' has no backing file`);
  startJob(node, domain, disk, {
    type: active ? 'activeCommit' : 'commit',
    staysReady: active,
    bandwidth: bandwidthBytes(args.bandwidth, args.flags),
    finish: () => setChain(node, domain, disk.target, [...chain.slice(0, top), ...chain.slice(base)]),
  });
}

export function blockPull(node: FakeNode, domain: FakeDomain, args: { readonly disk: string; readonly base?: string | null; readonly bandwidth: number }): void {
  const disk = diskForJob(domain, args.disk);
  const chain = chainOf(node, domain, disk.target);
  const base = position(chain, args.base, disk.target, chain.length);
  if (base === 0) throw invalidArgument(`active file '${chain[0]?.path}' cannot be its own base`);
  startJob(node, domain, disk, { type: 'pull', staysReady: false, bandwidth: args.bandwidth, finish: () => {
    const file = storageOf(node).files.get(chain[0]?.path ?? '');
    if (file !== undefined) file.backing = undefined;
    setChain(node, domain, disk.target, [chain[0] as Image, ...chain.slice(base)]);
  } });
}

export function blockCopy(node: FakeNode, domain: FakeDomain, args: { readonly disk: string; readonly xml: XmlElement; readonly bandwidth: number; readonly flags: readonly string[] }): void {
  const disk = diskForJob(domain, args.disk);
  const path = attributeOf(args.xml, 'file', 'source') ?? attributeOf(args.xml, 'dev', 'source');
  if (path === undefined) throw invalidArgument('missing source of the copy');
  if (domain.persistent !== undefined && !args.flags.includes('transientJob')) throw operationInvalid('domain is not transient');
  const chain = chainOf(node, domain, disk.target);
  const format = attributeOf(args.xml, 'type', 'driver') ?? chain[0]?.format ?? 'raw';
  const before = fileSizeOrUsual(node, chain[0]?.path);
  storageOf(node).files.set(path, { ...before, backing: args.flags.includes('shallow') ? chain[1] : undefined });
  startJob(node, domain, disk, { type: 'copy', staysReady: true, bandwidth: args.bandwidth, finish: () => setChain(node, domain, disk.target, [{ path, format }, ...(args.flags.includes('shallow') ? chain.slice(1) : [])]) });
}

export function abortBlockJob(node: FakeNode, domain: FakeDomain, name: string, pivot: boolean): void {
  const disk = diskForJob(domain, name);
  const job = domain.blockJobs?.get(disk.target);
  if (job === undefined) throw invalidArgument(`disk ${disk.target} does not have an active block job`);
  if (!pivot) return endJob(node, domain, job, 'canceled');
  if (job.type !== 'copy' && job.type !== 'activeCommit') throw operationInvalid(`job type '${job.type}' does not support pivot`);
  if (!job.ready) throw blockCopyActive(`block job '${job.target}' not ready for pivot yet`);
  endJob(node, domain, job, 'completed');
}

/** How much of it is done. */
export function progressOf(node: FakeNode, job: BlockJob): { readonly current: number; readonly end: number } {
  const share = job.ready ? 1 : Math.min(0.99, (node.clock.now() - job.startedAt) / Math.max(1, node.jobMs));
  return { current: Math.floor(job.end * share), end: job.end };
}

/** Bytes in a second, of which libvirt's older words give MiB. */
export const bandwidthBytes = (bandwidth: number, flags: readonly string[]): number => (flags.includes('bandwidthBytes') ? bandwidth : bandwidth * 1_048_576);

export function resizeDisk(node: FakeNode, domain: FakeDomain, name: string, bytes: number): void {
  const disk = diskOf(domain, name);
  const [path] = disk.chain;
  if (path === undefined || disk.readOnly) throw operationUnsupported(`can't resize empty or readonly disk '${disk.target}'`);
  const size = fileSizeOrUsual(node, path);
  const { files } = storageOf(node);
  const known = files.get(path) ?? size;
  if (known === size && Object.isFrozen(size)) return;
  files.set(path, { ...files.get(path), capacity: bytes, allocation: Math.min(size.allocation, bytes) });
}

/** A backup: the job of the domain, with one block job for each disk in it. */
export function beginBackup(node: FakeNode, domain: FakeDomain, request: XmlElement, printedXml: string): void {
  if (domain.job !== undefined || (domain.blockJobs?.size ?? 0) > 0) throw operationInvalid('another job is active');
  const mode = request.attributes['mode'] ?? 'push';
  const listed = childrenOf(childOf(request, 'disks'), 'disk');
  const wanted = domain.facts.disks.filter((disk) => disk.device === 'disk' && disk.chain.length > 0 && (listed.length === 0 || listed.some((one) => one.attributes['name'] === disk.target && one.attributes['backup'] !== 'no')));
  for (const one of listed) if (!domain.facts.disks.some((disk) => disk.target === one.attributes['name'])) throw invalidArgument(`no target disk: '${one.attributes['name']}'`);
  const incremental = childOf(request, 'incremental');
  if (incremental !== undefined && domain.checkpoints?.has(textOf(incremental)) !== true) throw invalidArgument(`could not locate checkpoint '${textOf(incremental)}' for incremental backup`);
  if (wanted.length === 0) throw invalidArgument('no disks selected for backup');
  const total = wanted.reduce((sum, disk) => sum + fileSizeOrUsual(node, disk.chain[0]).capacity, 0);
  const startedAt = node.clock.now();
  const jobs = (domain.blockJobs ??= new Map<string, BlockJob>());
  let over = false;
  const finish = (how: 'completed' | 'cancelled') => {
    if (over) return;
    over = true;
    cancel();
    domain.job = undefined;
    const elapsed = node.clock.now() - startedAt;
    const processed = how === 'completed' ? total : Math.floor(total * Math.min(1, elapsed / Math.max(1, node.jobMs)));
    const stats = { operation: 9, time_elapsed: elapsed, disk_total: total, disk_processed: processed, disk_remaining: total - processed, success: how === 'completed' };
    domain.jobLast = { type: how, stats };
    const ended = [...jobs.values()].filter((job) => job.type === 'backup');
    for (const job of ended) jobs.delete(job.target);
    if (!domain.active) return;
    node.emitDomain('jobCompleted', domain, { stats });
    for (const job of ended) tell(node, domain, job, how === 'completed' ? 'completed' : 'canceled');
  };
  for (const disk of wanted) {
    jobs.set(disk.target, { type: 'backup', target: disk.target, path: disk.chain[0] ?? '', startedAt, end: fileSizeOrUsual(node, disk.chain[0]).allocation, bandwidth: 0, ready: false, finish: () => {}, cancel: () => {}, whenOver: [] });
    const target = listed.find((one) => one.attributes['name'] === disk.target);
    const path = attributeOf(target, 'file', 'target');
    if (path !== undefined) storageOf(node).files.set(path, { ...fileSizeOrUsual(node, disk.chain[0]), backing: undefined });
  }
  domain.job = { operation: 'backup', startedAt, total, abort: () => finish(mode === 'pull' ? 'completed' : 'cancelled'), xml: printedXml };
  // A backup that is pulled lasts until whoever pulls says that it is over.
  const cancel = mode === 'pull' ? () => {} : node.clock.after(node.jobMs, () => finish('completed'));
}
