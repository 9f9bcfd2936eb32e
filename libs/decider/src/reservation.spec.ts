import { describe, expect, it } from 'vitest';
import { reservation } from './reservation.ts';
import { scenarioOf } from './scenario.ts';

const given = scenarioOf(reservation('vm-name', 'vm.name_taken'), (actual, expected) => { expect(actual).toEqual(expected); });
const claimed = { type: 'Claimed', data: { owner: 'vm_a', label: 'web' } } as const;
const unclaimed = { type: 'Unclaimed', data: { owner: 'vm_a' } } as const;

describe('What may be held once', () => {
  it('is given to whoever asks first', () => given().when({ type: 'Claim', owner: 'vm_a', label: 'web' }).then(claimed));
  it('is refused to others, naming who holds it', () => given(claimed).when({ type: 'Claim', owner: 'vm_b', label: 'web' }).thenRefused('vm.name_taken', { name: 'web', heldBy: 'vm_a' }));
  it('is his already', () => given(claimed).when({ type: 'Claim', owner: 'vm_a', label: 'web' }).then());
  it('can be given back by its holder', () => given(claimed).when({ type: 'Unclaim', owner: 'vm_a' }).then(unclaimed));
  it('cannot be given back by another, who is told nothing wrong', () => given(claimed).when({ type: 'Unclaim', owner: 'vm_b' }).then());
  it('can be taken by another afterwards', () => given(claimed, unclaimed).when({ type: 'Claim', owner: 'vm_b', label: 'web' }).then({ type: 'Claimed', data: { owner: 'vm_b', label: 'web' } }));
  it('is given back once', () => given(claimed, unclaimed).when({ type: 'Unclaim', owner: 'vm_a' }).then());
});
