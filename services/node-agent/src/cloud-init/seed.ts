/*
 * The three files from which cloud-init learns at the first boot (data source NoCloud,
 * https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html): who the machine is, what its
 * user wants, and how its interfaces are set. All of them are YAML, and JSON is YAML, so nothing is escaped
 * by hand.
 */
import type { DomainPlan, Seed } from '@chronovirt/contracts/agent/agent.commands';
import { bootRunsHook, type OpenedRun } from '../boot-jobs/boot-runs.ts';

export interface SeedFiles {
  readonly 'meta-data': string;
  readonly 'user-data': string;
  readonly 'network-config': string;
  readonly 'vendor-data'?: string;
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

/**
 * cloud-init makes new host keys and a new host name for a new instance, and leaves the machine id as it is:
 * systemd makes one only where there is none, which in a copy of a disk there is. So the copy is given another,
 * once, before anything else (a boothook runs first, at every start). What a machine is told anew later, as a new
 * instance, does not make another machine of it: so the mark is the machine's own id.
 */
const anotherMachine = (instanceId: string): string => {
  const [machine = instanceId] = instanceId.split('-');
  return `mark=/var/lib/chronovirt-machine
if [ "$(cat "$mark" 2>/dev/null)" != '${machine}' ]; then
  rm -f /etc/machine-id /var/lib/dbus/machine-id
  if command -v systemd-machine-id-setup >/dev/null; then systemd-machine-id-setup; else tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id; fi
  mkdir -p /var/lib
  echo '${machine}' >"$mark"
fi
`;
};

/** Runs first, at every boot. */
const boothook = (...parts: readonly string[]): Pick<SeedFiles, 'vendor-data'> => (parts.length === 0 ? {} : { 'vendor-data': `#cloud-boothook\n#!/bin/sh\n${parts.join('')}` });

/** Without interfaces of ours the guest keeps what it has: an empty list would take it away. */
export const seedFiles = ({ instanceId, hostname, sshKeys, userData, networkConfig: given, newIdentity }: Seed, nics: DomainPlan['nics'] | null, runs: readonly OpenedRun[] = []): SeedFiles => ({
  'meta-data': `${JSON.stringify({ 'instance-id': instanceId, 'local-hostname': hostname, 'public-keys': sshKeys })}\n`,
  'user-data': userData ?? '#cloud-config\n{}\n',
  'network-config': given ?? `${JSON.stringify(nics === null ? { config: 'disabled' } : networkConfig(nics))}\n`,
  ...boothook(...(newIdentity === true ? [anotherMachine(instanceId)] : []), ...(runs.length === 0 ? [] : [bootRunsHook(runs)])),
});
