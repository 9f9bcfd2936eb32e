import { describe, expect, it } from 'vitest';
import type { NetworkEvent, NetworkPlan } from '@chronovirt/contracts/network/network.events';
import { scenarioOf } from '@chronovirt/decider/scenario';
import { network } from './network.ts';

const digits = '0'.repeat(32);
const plan: NetworkPlan = { networkId: `network_${digits}`, subnetId: `subnet_${digits}`, name: 'cv-default', kind: 'nat', cidr: '10.21.0.0/24', gateway: '10.21.0.1', prefix: 24, bridge: 'cvbr-0' };
const given = scenarioOf(network, (actual, expected) => { expect(actual).toEqual(expected); });
const created: NetworkEvent = { type: 'NetworkCreated', data: plan };
const deleted: NetworkEvent = { type: 'NetworkDeleted', data: { networkId: plan.networkId } };
const remove = { type: 'DeleteNetwork', data: { networkId: plan.networkId } } as const;

describe('A network', () => {
  it('is recorded once', () => {
    given().when({ type: 'RecordNetwork', data: plan }).then(created);
    given(created).when({ type: 'RecordNetwork', data: plan }).then();
  });
  it('names its subnet', () => given().when({ type: 'RecordNetwork', data: plan }).thenFacts({ networkId: plan.networkId, subnetId: plan.subnetId }));
  it('is deleted once', () => {
    given(created).when(remove).then(deleted);
    given(created, deleted).when(remove).then();
    given().when(remove).thenRefused('network.not_found', { networkId: plan.networkId });
  });
  it('does not come back', () => given(created, deleted).when({ type: 'RecordNetwork', data: plan }).thenRefused('network.not_found', { networkId: plan.networkId }));
});
