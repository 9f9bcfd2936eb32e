import { describe, expect, it } from 'vitest';
import { networkNameFor, type Machine } from './network-name.ts';

interface Libvirt {
  networks: Record<string, string>;
  domains: Record<string, string>;
  clients: number;
}

const ours = "<network><metadata><cv:network xmlns:cv='urn:chronovirt:network:1'/></metadata></network>";

function machineOf(libvirt: Libvirt): Machine {
  const found = (table: Record<string, string>, key: string | undefined): Promise<string> => (key !== undefined && key in table ? Promise.resolve(table[key] ?? '') : Promise.reject(new Error(`no ${key}`)));
  return {
    connections: () => libvirt.clients,
    virsh: async (verb, name) => {
      if (verb === 'net-dumpxml') return found(libvirt.networks, name);
      if (verb === 'dumpxml') return found(libvirt.domains, name);
      if (verb === 'list') return Object.keys(libvirt.domains).join('\n');
      if (verb === 'net-destroy') throw new Error('network is not active');
      if (verb === 'net-undefine') return found(libvirt.networks, name).then(() => (Object.assign(libvirt, { networks: Object.fromEntries(Object.entries(libvirt.networks).filter(([key]) => key !== name)) }), ''));
      throw new Error(`unexpected ${verb}`);
    },
  };
}

const choose = (libvirt: Libvirt): ReturnType<typeof networkNameFor> => networkNameFor('cv-default', '0a1b2c3d', machineOf(libvirt));

describe('the name of the VMs\' network', () => {
  it('is the usual one where libvirt has none of that name', async () => {
    expect(await choose({ networks: { default: '<network/>' }, domains: {}, clients: 3 })).toEqual({ name: 'cv-default' });
  });

  it('is the usual one, and what an earlier installation left is removed, where nobody uses it', async () => {
    const libvirt: Libvirt = { networks: { 'cv-default': ours }, domains: { a: "<source network='default'/>" }, clients: 0 };
    expect(await choose(libvirt)).toMatchObject({ name: 'cv-default', remark: expect.stringContaining('removed') as string });
    expect(libvirt.networks).toEqual({});
  });

  it.each<[string, Partial<Libvirt>]>([
    ['somebody else made it', { networks: { 'cv-default': '<network/>' } }],
    ['a virtual machine is on it', { domains: { a: "<source network='cv-default'/>" } }],
    ['another agent is connected', { clients: 1 }],
  ])('is another one where %s, and nothing is touched', async (_why, other) => {
    const libvirt: Libvirt = { networks: { 'cv-default': ours }, domains: {}, clients: 0, ...other };
    const before = structuredClone(libvirt);
    expect((await choose(libvirt)).name).toBe('cv-default-0a1b2c3d');
    expect(libvirt).toEqual(before);
  });
});
