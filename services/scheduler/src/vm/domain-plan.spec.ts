import { Hostname, type CloudInit } from '@chronovirt/contracts/vm/cloud-init';
import { specAfterChange } from '@chronovirt/contracts/vm/reconfiguration';
import type { VmSpec } from '@chronovirt/contracts/vm/vm.events';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hostnameOf, type Machine, planOf } from './domain-plan.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const network = { networkId: `network_${hex(4)}`, subnetId: `subnet_${hex(5)}`, name: 'cv-default', kind: 'nat', cidr: '10.21.0.0/24', gateway: '10.21.0.1', prefix: 24, bridge: 'cvbr-0' } as const;
const told: CloudInit = { hostname: 'web-1', sshKeys: ['ssh-ed25519 AAAA'] };
const spec: VmSpec = {
  name: 'web_1', description: '', imageId: `image_${hex(6)}`, networkId: network.networkId, subnetId: network.subnetId, vcpus: 1, memoryMib: 256, diskGib: 2,
  accel: 'any', devices: 'virtio', nodeId: null, tags: [], protected: false, vcpusMax: 4, memoryMibMax: 1_024, boot: ['disk'], media: null, cloudInit: told, diskLimits: null,
};
const machine: Machine = { vmId: `vm_${hex(1)}`, spec, volumeId: `volume_${hex(1)}`, first: { network, mac: '52:54:0a:15:00:02', address: '10.21.0.2' }, layout: null, nics: [], volumes: [], seedVersion: 1, layers: {} };

describe('The host name of a guest that was given none', () => {
  it('is made of the VM\'s name, whatever that is', () => {
    expect(['web_1', 'web-1.', 'a..b', 'a.-b-.c', '0'].map(hostnameOf)).toEqual(['web-1', 'web-1', 'a.b', 'a.b.c', '0']);
    fc.assert(fc.property(fc.stringMatching(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/), (name) => Hostname.safeParse(hostnameOf(name)).success));
  });
});

describe('The second drive', () => {
  const driversOf = (more: Partial<VmSpec>, layout: Machine['layout'] = null) => planOf({ ...machine, layout, spec: { ...spec, ...more } }).drivers;
  const drivers = { imageId: `image_${hex(7)}`, file: 'virtio.iso' } as const;
  it('is there in a Windows, also one that was made before there was such a drive, and in what was given drivers', () => {
    expect([driversOf({}), driversOf({ osFamily: 'linux' }), driversOf({ osFamily: 'windows' }), driversOf({ drivers }), driversOf({ drivers: null })]).toEqual([undefined, undefined, null, 'virtio.iso', null]);
    expect(driversOf({ osFamily: 'windows', drivers }, { disks: [], macs: [] })).toBeUndefined();
  });
  it('is changed and emptied like the first, and otherwise left alone', () => {
    expect(specAfterChange(spec, { drivers })).toMatchObject({ drivers });
    expect(specAfterChange({ ...spec, drivers }, { vcpus: 2 })).toMatchObject({ drivers });
    expect(specAfterChange({ ...spec, drivers }, { drivers: null })).toMatchObject({ drivers: null });
  });
});

describe('What cloud-init is told', () => {
  const seedOf = (changes: Partial<Machine> = {}) => planOf({ ...machine, ...changes }).seed;
  it('is for the machine itself at first, and for a new one when it is told anew', () => {
    expect(seedOf()).toEqual({ ...told, instanceId: machine.vmId });
    expect(seedOf({ seedVersion: 3 })).toMatchObject({ instanceId: `${machine.vmId}-3` });
    expect(seedOf({ spec: { ...spec, cloudInit: null } })).toBeNull();
  });
  it('keeps the guest\'s name when the VM is renamed, or when new words say none', () => {
    expect(specAfterChange(spec, { name: 'other' }).cloudInit).toEqual(told);
    expect(specAfterChange(spec, { cloudInit: { sshKeys: [], userData: '#!/bin/sh' } }).cloudInit).toEqual({ hostname: 'web-1', sshKeys: [], userData: '#!/bin/sh' });
    expect(specAfterChange(spec, { hostname: 'web-2', cloudInit: { hostname: 'web-3', sshKeys: [] } }).cloudInit).toEqual({ hostname: 'web-2', sshKeys: [] });
    expect(specAfterChange(spec, { hostname: 'web-2' }).cloudInit).toEqual({ ...told, hostname: 'web-2' });
    expect(specAfterChange({ ...spec, cloudInit: null }, { hostname: 'web-2' }).cloudInit).toBeNull();
  });
});
