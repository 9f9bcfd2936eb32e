import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { seedFiles } from './seed.ts';
import { key, nics, seed } from './testing-seed.ts';

describe('What cloud-init is told', () => {
  it('is who the machine is, and who may log in, whatever a key\'s comment holds', () => {
    expect(parse(seedFiles(seed, nics)['meta-data'])).toEqual({ 'instance-id': 'vm_1', 'local-hostname': 'web-1.example', 'public-keys': [key] });
  });

  it('is each interface by its MAC, with the address it was leased; the first one leads out', () => {
    expect(parse(seedFiles(seed, nics)['network-config'])).toEqual({
      version: 2,
      ethernets: {
        nic0: { match: { macaddress: '52:54:0a:15:00:05' }, dhcp4: false, addresses: ['10.21.0.5/24'], routes: [{ to: '0.0.0.0/0', via: '10.21.0.1' }], nameservers: { addresses: ['10.21.0.1'] } },
        nic1: { match: { macaddress: '52:54:0a:16:00:07' }, dhcp4: false, addresses: ['10.22.0.7/16'] },
      },
    });
  });

  it('is the user\'s own data and network to the letter, and nothing to do where there is none', () => {
    const own = { userData: '#!/bin/sh\necho "$HOME" > /x\n', networkConfig: 'version: 1\nconfig: disabled\n' };
    expect(seedFiles({ ...seed, ...own }, nics)).toMatchObject({ 'user-data': own.userData, 'network-config': own.networkConfig });
    const { 'user-data': nothing } = seedFiles(seed, nics);
    // The first line is a header, not a comment.
    expect(nothing.split('\n')[0]).toBe('#cloud-config');
    expect(parse(nothing)).toEqual({});
  });

  it('is, in a copy of another machine\'s disk, to be another machine: once, and before anything else', () => {
    expect(seedFiles(seed, nics)).not.toHaveProperty('vendor-data');
    const { 'vendor-data': first = '' } = seedFiles({ ...seed, newIdentity: true }, nics);
    expect(first.split('\n').slice(0, 2)).toEqual(['#cloud-boothook', '#!/bin/sh']);
    // What it is told anew later makes no other machine of it.
    expect(seedFiles({ ...seed, newIdentity: true, instanceId: `${seed.instanceId}-2` }, nics)['vendor-data']).toBe(first);
    expect(seedFiles({ ...seed, newIdentity: true, instanceId: 'vm_2' }, nics)['vendor-data']).not.toBe(first);
  });
});
