import type { RecordedEvent } from '@chronovirt/event-log/log';
import { describe, expect, it } from 'vitest';
import { SchedulerView } from './view.projection.ts';

const nodeId = `node_${'1'.repeat(32)}`;
const vmId = `vm_${'2'.repeat(32)}`;
const share = { vcpus: 2, memoryMib: 512 };

const viewOf = (...events: readonly (readonly [type: string, data: object])[]): { readonly view: SchedulerView; readonly next: (type: string, data: object) => RecordedEvent } => {
  const view = new SchedulerView();
  let version = 0;
  const next = (type: string, data: object): RecordedEvent => {
    version++;
    return { position: version, stream: `node-${nodeId}`, version, id: crypto.randomUUID(), type, data: data as RecordedEvent['data'], meta: { actor: 'system:test', commandId: crypto.randomUUID() }, recordedAt: '2026-01-01T00:00:00.000000Z' };
  };
  for (const [type, data] of events) view.take(next(type, data));
  return { view, next };
};

const registered = ['NodeRegistered', { nodeId, name: 'one', machineId: 'm', credentialKey: 'k', sealKey: 's' }] as const;
const used = (view: SchedulerView, besidesPromised = false): number | undefined => [...view.candidates(besidesPromised)][0]?.vcpusReserved;

describe('what the scheduler has proposed and not decided', () => {
  it('counts as use, until it is given back', () => {
    const { view } = viewOf(registered);
    const giveBack = view.promise(nodeId, vmId, share);
    expect([used(view), used(view, true)]).toEqual([2, 0]);
    giveBack();
    expect(used(view)).toBe(0);
  });

  it('counts once, when the log brings the decision before the answer comes', () => {
    const { view, next } = viewOf(registered);
    const giveBack = view.promise(nodeId, vmId, share);
    view.take(next('CapacityReserved', { vmId, ...share, decision: {} }));
    expect(used(view)).toBe(2);
    giveBack();
    expect(used(view)).toBe(2);
  });

  it('is waited for by those whom it alone would turn away', async () => {
    const { view } = viewOf(registered);
    await view.decided();
    const giveBack = view.promise(nodeId, vmId, share);
    let decided = false;
    const waiting = view.decided().then(() => { decided = true; });
    await Promise.resolve();
    expect(decided).toBe(false);
    giveBack();
    await waiting;
    expect(used(view)).toBe(0);
  });
});

describe('a family of images', () => {
  it('means the newest version, or the one that was chosen', () => {
    const view = new SchedulerView();
    let position = 0;
    const take = (imageId: string, type: string, data: object): void => {
      view.take({ position: ++position, stream: `image-${imageId}`, version: position, id: crypto.randomUUID(), type, data: data as RecordedEvent['data'], meta: { actor: 'system:test', commandId: crypto.randomUUID() }, recordedAt: '2026-01-01T00:00:00.000000Z' });
    };
    const [one, two] = [`image_${'1'.repeat(32)}`, `image_${'2'.repeat(32)}`];
    const version = (imageId: string, name: string): void => { take(imageId, 'ImageRegistered', { imageId, name, family: 'debian', file: 'x.qcow2', format: 'qcow2', sha256: 'a'.repeat(64), sizeBytes: 1, minDiskGib: 1, minMemoryMib: 64 }); };
    const current = (): string | undefined => view.entryCalled('image', 'debian')?.imageId;
    version(one, 'debian-1');
    version(two, 'debian-2');
    expect([current(), view.entryCalled('image', 'debian-1')?.imageId]).toEqual([two, one]);
    take(one, 'ImageMadeCurrent', { imageId: one, family: 'debian' });
    expect(current()).toBe(one);
    take(one, 'ImageDeleted', { imageId: one });
    expect([current(), view.entryCalled('image', 'ubuntu')]).toEqual([two, undefined]);
  });
});
