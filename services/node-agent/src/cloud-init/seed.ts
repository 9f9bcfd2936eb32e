/*
 * The three files from which cloud-init learns at the first boot (data source NoCloud,
 * https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html): who the machine is, what its
 * user wants, and how its interfaces are set. All of them are YAML, and JSON is YAML, so nothing is escaped
 * by hand.
 */
import type { DomainPlan, Seed } from '@chronovirt/contracts/agent/agent.commands';

export interface SeedFiles {
  readonly 'meta-data': string;
  readonly 'user-data': string;
  readonly 'network-config': string;
}

/** Network configuration, version 2: each interface by its MAC, with the address that was leased to it; the first has the way out. */
const networkConfig = (nics: DomainPlan['nics']): object => ({
  version: 2,
  ethernets: Object.fromEntries(nics.map(({ network, mac, address }, index) => [`nic${String(index)}`, {
    match: { macaddress: mac },
    dhcp4: false,
    addresses: [`${address}/${String(network.prefix)}`],
    ...(index === 0 ? { routes: [{ to: '0.0.0.0/0', via: network.gateway }], nameservers: { addresses: [network.gateway] } } : {}),
  }])),
});

export const seedFiles = ({ instanceId, hostname, sshKeys, userData, networkConfig: given }: Seed, nics: DomainPlan['nics']): SeedFiles => ({
  'meta-data': `${JSON.stringify({ 'instance-id': instanceId, 'local-hostname': hostname, 'public-keys': sshKeys })}\n`,
  'user-data': userData ?? '#cloud-config\n{}\n',
  'network-config': given ?? `${JSON.stringify(networkConfig(nics))}\n`,
});
