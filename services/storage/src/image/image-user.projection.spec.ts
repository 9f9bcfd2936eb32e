import { describe, expect, it } from 'vitest';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import { ProjectionInMemory } from '@chronovirt/event-log/projection';
import { imageUser, usersAmong } from './image-user.projection.ts';

const folded = (...events: readonly (readonly [vm: string, type: string, data: object])[]): ProjectionInMemory<never> => {
  const users = new ProjectionInMemory(imageUser);
  events.forEach(([vm, type, data], index) => { users.take({ stream: `${vm.startsWith('volume_') ? 'volume' : 'vm'}-${vm}`, type, data, position: index + 1 } as unknown as RecordedEvent); });
  return users as never;
};
const asked = (vm: string, imageId: string | null, medium: string | null = null) => [vm, 'VmRequested', { spec: { name: `name of ${vm}`, imageId, media: medium === null ? null : { imageId: medium, file: 'x.iso' } } }] as const;
const usersOf = (users: ProjectionInMemory<never>, imageId: string) => usersAmong(users.documents.values(), imageId);

describe('An image', () => {
  it('is used by the VMs that were made from it, until they are deleted', () => {
    expect(usersOf(folded(asked('vm_1', 'disk'), asked('vm_2', 'other'), asked('vm_3', null)), 'disk')).toEqual({ count: 1, vms: [{ id: 'vm_1', name: 'name of vm_1' }] });
    expect(usersOf(folded(asked('vm_1', 'disk'), ['vm_1', 'VmDeleted', {}]), 'disk')).toEqual({ count: 0, vms: [] });
  });
  it('is used while it is in a drive', () => {
    const change = (media: object | null) => ['vm_1', 'VmReconfigured', { change: { media } }] as const;
    expect(usersOf(folded(asked('vm_1', 'disk', 'medium')), 'medium').count).toBe(1);
    expect(usersOf(folded(asked('vm_1', 'disk', 'medium'), change(null)), 'medium').count).toBe(0);
    expect(usersOf(folded(asked('vm_1', 'disk'), change({ imageId: 'medium' }), ['vm_1', 'VmReconfigured', { change: { name: 'new' } }]), 'medium')).toEqual({ count: 1, vms: [{ id: 'vm_1', name: 'new' }] });
  });
  it('is used while it is in a second drive', () => {
    const change = (drivers: object | null) => ['vm_1', 'VmReconfigured', { change: { drivers } }] as const;
    const inSecond = ['vm_1', 'VmRequested', { spec: { name: 'one', imageId: null, media: null, drivers: { imageId: 'drivers', file: 'x.iso' } } }] as const;
    expect(usersOf(folded(inSecond), 'drivers').count).toBe(1);
    expect(usersOf(folded(inSecond, change(null)), 'drivers').count).toBe(0);
    expect(usersOf(folded(asked('vm_1', 'disk'), change({ imageId: 'drivers' }), ['vm_1', 'VmReconfigured', { change: { name: 'new' } }]), 'drivers').count).toBe(1);
  });
  it('is used by what is started with it', () => {
    const started = (kernel: object | null) => ['vm_1', 'VmReconfigured', { change: { kernel } }] as const;
    const kernel = { imageId: 'kernel', file: 'k', initrd: { imageId: 'initrd', file: 'i' }, arguments: '' };
    const users = folded(asked('vm_1', 'disk'), started(kernel), ['vm_1', 'VmReconfigured', { change: { name: 'new' } }]);
    expect(['kernel', 'initrd', 'disk'].map((imageId) => usersOf(users, imageId).count)).toEqual([1, 1, 1]);
    expect(['kernel', 'initrd'].map((imageId) => usersOf(folded(asked('vm_1', 'disk'), started(kernel), started({ ...kernel, initrd: null })), imageId).count)).toEqual([1, 0]);
    expect(usersOf(folded(asked('vm_1', 'disk'), started(kernel), started(null)), 'kernel').count).toBe(0);
  });
  it('is used by volumes that began as it, whether a VM has them or not; a VM\'s first disk is the VM\'s', () => {
    const made = (name?: string) => ['volume_1', 'VolumeCreated', { imageId: 'disk', ...(name === undefined ? {} : { name }) }] as const;
    expect(usersOf(folded(made('data')), 'disk')).toEqual({ count: 1, vms: [{ id: 'volume_1', name: 'data' }] });
    expect(usersOf(folded(made('data'), ['volume_1', 'VolumeDetached', {}]), 'disk').count).toBe(1);
    expect(usersOf(folded(made('data'), ['volume_1', 'VolumeDeleted', {}]), 'disk').count).toBe(0);
    expect(usersOf(folded(made()), 'disk').count).toBe(0);
  });
  it('names ten of those that use it, and counts all', () => {
    const users = usersOf(folded(...Array.from({ length: 12 }, (_, n) => asked(`vm_${String(n)}`, 'disk'))), 'disk');
    expect(users.count).toBe(12);
    expect(users.vms).toHaveLength(10);
  });
});
