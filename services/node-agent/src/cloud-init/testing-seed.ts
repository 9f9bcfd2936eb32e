/** What a guest is told, for tests. */
import type { DomainPlan, Seed } from '@chronovirt/contracts/agent/agent.commands';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const networkOf = (number: number, prefix: number) => ({
  networkId: `network_${hex(number)}`, subnetId: `subnet_${hex(number)}`, name: `net-${String(number)}`, kind: 'nat', cidr: `10.${String(number)}.0.0/${String(prefix)}`, gateway: `10.${String(number)}.0.1`, prefix, bridge: `cvbr-${String(number)}`,
} as const);

export const key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGnbTTYoHzRSBVKtYxHQFnVzH1cvuzCcuQ9uWq8Q2hjW who"e\'er: {you} are';
export const seed: Seed = { instanceId: 'vm_1', hostname: 'web-1.example', sshKeys: [key] };
export const nics: DomainPlan['nics'] = [
  { network: networkOf(21, 24), mac: '52:54:0a:15:00:05', address: '10.21.0.5' },
  { network: networkOf(22, 16), mac: '52:54:0a:16:00:07', address: '10.22.0.7' },
];
