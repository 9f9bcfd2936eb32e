import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import type { SubnetId, VmId } from '@chronovirt/contracts/ids';
import type { SubnetEvent } from '@chronovirt/contracts/subnet/subnet.events';
import { isRefusal, replay } from '@chronovirt/decider/decider';
import { scenarioOf } from '@chronovirt/decider/scenario';
import { macOf, numberOf, rangeOf, textOf } from './address.ts';
import { subnet } from './subnet.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const subnetId: SubnetId = `subnet_${hex(1)}`;
const networkId = `network_${hex(2)}` as const;
const vm = (n: number): VmId => `vm_${hex(n)}`;
const given = scenarioOf(subnet, (actual, expected) => { expect(actual).toEqual(expected); });
const created = (cidr = '10.21.0.0/24', reserved: string[] = []): SubnetEvent => ({ type: 'SubnetCreated', data: { subnetId, networkId, cidr, gateway: '10.21.0.1', reserved } });
const leased = (n: number, address: string): SubnetEvent => ({ type: 'AddressLeased', data: { vmId: vm(n), address, mac: macOf(numberOf(address)) } });
const released = (n: number, address: string): SubnetEvent => ({ type: 'AddressReleased', data: { vmId: vm(n), address } });
const lease = (n: number) => ({ type: 'LeaseAddress', data: { subnetId, vmId: vm(n) } }) as const;

describe('A subnet', () => {
  it('leaves out network, gateway and broadcast', () => {
    expect(rangeOf('10.21.0.77/24')).toEqual({ cidr: '10.21.0.0/24', prefix: 24, gateway: numberOf('10.21.0.1'), first: numberOf('10.21.0.2'), last: numberOf('10.21.0.254') });
    given(created()).when(lease(1)).then(leased(1, '10.21.0.2'));
  });
  it('has one address at least', () => { expect(rangeOf('192.168.1.8/30')).toMatchObject({ first: numberOf('192.168.1.10'), last: numberOf('192.168.1.10') }); });
  it('is neither wider than a class A nor a point', () => {
    for (const cidr of ['10.0.0.0/7', '10.0.0.0/31', '10.0.0.0/x', '10.0.0.0']) expect(rangeOf(cidr)).toMatchObject({ refused: 'subnet.prefix_not_supported' });
  });
  it('makes the MAC of the address', () => given(created(), leased(1, '10.21.0.2')).when(lease(2)).thenFacts({ address: '10.21.0.3', mac: '52:54:0a:15:00:03' }));
  it('answers the lease a VM has', () => {
    given(created(), leased(1, '10.21.0.2')).when(lease(1)).then();
    given(created(), leased(1, '10.21.0.2')).when(lease(1)).thenFacts({ address: '10.21.0.2', mac: '52:54:0a:15:00:02' });
  });
  it('never leases what is reserved', () => given(created('10.21.0.0/24', ['10.21.0.2', '10.21.0.3'])).when(lease(1)).then(leased(1, '10.21.0.4')));
  it('leases a freed address last', () => given(created('10.21.0.0/29'), leased(1, '10.21.0.2'), released(1, '10.21.0.2')).when(lease(2)).then(leased(2, '10.21.0.3')));
  it('leases it again when there is no other', () =>
    given(created('10.21.0.0/29'), leased(1, '10.21.0.2'), leased(2, '10.21.0.3'), leased(3, '10.21.0.4'), leased(4, '10.21.0.5'), leased(5, '10.21.0.6'), released(2, '10.21.0.3')).when(lease(6)).then(leased(6, '10.21.0.3')));
  it('says when it is full', () => given(created('10.21.0.0/30'), leased(1, '10.21.0.2')).when(lease(2)).thenRefused('subnet.exhausted', { subnetId, cidr: '10.21.0.0/30', leased: 1, reserved: 0 }));
  it('takes an address back once', () => {
    given(created(), leased(1, '10.21.0.2')).when({ type: 'ReleaseAddress', data: { subnetId, vmId: vm(1) } }).then(released(1, '10.21.0.2'));
    given(created(), leased(1, '10.21.0.2'), released(1, '10.21.0.2')).when({ type: 'ReleaseAddress', data: { subnetId, vmId: vm(1) } }).then();
    given().when({ type: 'ReleaseAddress', data: { subnetId, vmId: vm(1) } }).then();
  });
  it('is not there before it is created, and not after it is deleted', () => {
    given().when(lease(1)).thenRefused('subnet.not_found', { subnetId });
    given(created(), { type: 'SubnetDeleted', data: { subnetId } }).when(lease(1)).thenRefused('subnet.not_found', { subnetId });
  });
  it('is deleted when nobody has an address, and only then', () => {
    given(created()).when({ type: 'DeleteSubnet', data: { subnetId } }).then({ type: 'SubnetDeleted', data: { subnetId } });
    given(created(), leased(1, '10.21.0.2')).when({ type: 'DeleteSubnet', data: { subnetId } }).thenRefused('subnet.in_use', { subnetId, networkId, count: 1, vms: [vm(1)] });
    given(created(), { type: 'SubnetDeleted', data: { subnetId } }).when({ type: 'DeleteSubnet', data: { subnetId } }).then();
  });
  it('is created once, with the host bits cleared', () => {
    given().when({ type: 'CreateSubnet', data: { subnetId, networkId, cidr: '10.21.0.9/24', reserved: [] } }).then(created());
    given(created()).when({ type: 'CreateSubnet', data: { subnetId, networkId, cidr: '10.21.0.0/24', reserved: [] } }).then();
    given(created()).when({ type: 'CreateSubnet', data: { subnetId, networkId, cidr: '10.22.0.0/24', reserved: [] } }).thenRefused('subnet.exists', { subnetId });
    given().when({ type: 'CreateSubnet', data: { subnetId, networkId, cidr: '10.21.0.0/24', reserved: ['10.22.0.1'] } }).thenRefused('subnet.address_outside', { addresses: ['10.22.0.1'], cidr: '10.21.0.0/24' });
  });
  it('reserves what nobody has, and gives it free again', () => {
    const change = (reserve: string[], unreserve: string[] = []) => ({ type: 'ChangeReserved', data: { subnetId, reserve, unreserve } }) as const;
    given(created(), leased(1, '10.21.0.2')).when(change(['10.21.0.2'])).thenRefused('subnet.address_in_use', { addresses: ['10.21.0.2'] });
    given(created()).when(change(['10.21.1.2'])).thenRefused('subnet.address_outside', { addresses: ['10.21.1.2'], cidr: '10.21.0.0/24' });
    given(created('10.21.0.0/24', ['10.21.0.5'])).when(change(['10.21.0.2', '10.21.0.5'], ['10.21.0.9'])).then({ type: 'AddressesReserved', data: { addresses: ['10.21.0.2'] } });
    given(created('10.21.0.0/24', ['10.21.0.2']), { type: 'AddressesUnreserved', data: { addresses: ['10.21.0.2'] } }).when(lease(1)).then(leased(1, '10.21.0.2'));
  });

  it('whatever is leased, released and reserved: no address twice, none outside, none reserved, and full only when it is', () => {
    const act = fc.oneof(fc.record({ type: fc.constant('LeaseAddress' as const), vm: fc.nat(12) }), fc.record({ type: fc.constant('ReleaseAddress' as const), vm: fc.nat(12) }), fc.record({ type: fc.constant('ChangeReserved' as const), vm: fc.integer({ min: 2, max: 6 }) }));
    fc.assert(fc.property(fc.array(act, { maxLength: 60 }), (acts) => {
      let history: SubnetEvent[] = [created('10.21.0.0/29')];
      const holders = new Map<string, string>();
      const reserved = new Set<string>();
      for (const { type, vm: n } of acts) {
        const state = replay(subnet, history);
        const decision = subnet.decide(type === 'ChangeReserved' ? { type, data: { subnetId, reserve: [`10.21.0.${String(n)}`], unreserve: [] } } : { type, data: { subnetId, vmId: vm(n) } }, state);
        if (isRefusal(decision)) {
          if (decision.refused === 'subnet.exhausted') expect(new Set([...holders.keys(), ...reserved]).size).toBe(5);
          continue;
        }
        for (const event of decision) {
          if (event.type === 'AddressLeased') {
            expect(holders.has(event.data.address)).toBe(false);
            expect(reserved.has(event.data.address)).toBe(false);
            expect([2, 3, 4, 5, 6].map((last) => `10.21.0.${String(last)}`)).toContain(event.data.address);
            holders.set(event.data.address, event.data.vmId);
          }
          if (event.type === 'AddressReleased') {
            expect(holders.get(event.data.address)).toBe(event.data.vmId);
            holders.delete(event.data.address);
          }
          if (event.type === 'AddressesReserved') for (const address of event.data.addresses) reserved.add(address);
        }
        history = [...history, ...decision];
      }
    }), { numRuns: 150 });
  });

  it('writes numbers as addresses and reads them again', () => {
    fc.assert(fc.property(fc.nat(2 ** 32 - 1), (number) => { expect(numberOf(textOf(number))).toBe(number); }));
  });
});
