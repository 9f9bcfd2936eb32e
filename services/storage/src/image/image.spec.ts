import { describe, expect, it } from 'vitest';
import type { ImageEvent } from '@chronovirt/contracts/image/image.events';
import { scenarioOf } from '@chronovirt/decider/scenario';
import { image } from './image.ts';

const digits = '0'.repeat(32);
const description: Extract<ImageEvent, { type: 'ImageRegistered' }>['data'] = { imageId: `image_${digits}`, name: 'guest', file: 'guest.qcow2', format: 'qcow2', sha256: 'a'.repeat(64), sizeBytes: 1_000, minDiskGib: 1, minMemoryMib: 64 };
const given = scenarioOf(image, (actual, expected) => { expect(actual).toEqual(expected); });
const registered: ImageEvent = { type: 'ImageRegistered', data: description };
const deleted: ImageEvent = { type: 'ImageDeleted', data: { imageId: description.imageId } };
const remove = { type: 'DeleteImage', data: { imageId: description.imageId } } as const;

describe('An image', () => {
  it('is registered once', () => {
    given().when({ type: 'RegisterImage', data: description }).then(registered);
    given(registered).when({ type: 'RegisterImage', data: description }).then();
  });
  it('never changes its content', () => given(registered).when({ type: 'RegisterImage', data: { ...description, sha256: 'b'.repeat(64) } }).thenRefused('image.exists', { imageId: description.imageId }));
  it('is deleted once', () => {
    given(registered).when(remove).then(deleted);
    given(registered, deleted).when(remove).then();
    given().when(remove).thenRefused('image.not_found', { imageId: description.imageId });
  });
  it('is made the current version of its family, and of none when it has none', () => {
    const use = { type: 'UseImage', data: { imageId: description.imageId } } as const;
    given({ type: 'ImageRegistered', data: { ...description, family: 'debian' } }).when(use).then({ type: 'ImageMadeCurrent', data: { imageId: description.imageId, family: 'debian' } });
    given(registered).when(use).thenRefused('image.no_family', { imageId: description.imageId });
    given(registered, deleted).when(use).thenRefused('image.not_found', { imageId: description.imageId });
  });
  it('does not come back', () => given(registered, deleted).when({ type: 'RegisterImage', data: description }).thenRefused('image.exists', { imageId: description.imageId }));
});
