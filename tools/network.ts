/*
 * A subnet for the VMs of this machine that nothing here uses yet.
 *
 * A NAT network on a subnet that the machine also reaches elsewhere would take away that elsewhere,
 * so every address and route of the machine is asked. Networks that are defined and not running do not
 * show there; the one that libvirt's own packages define is known by name.
 */
import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';

/** First address and size of a block, both as plain numbers. */
export interface Block {
  readonly first: number;
  readonly size: number;
}

const LIBVIRT_DEFAULT = blockOf('192.168.122.0', 24);

/** `10.<x>.<y>.0/24` that overlaps nothing of `taken`; the same answer as long as nothing changes. */
export function freeSubnet(taken: readonly Block[]): string {
  // From 10.77 on: the beginning of 10/8 is what most offices and clouds use.
  for (let step = 0; step < 256; step++) {
    const second = (77 + step) % 256;
    for (const third of [0, 64, 128, 192]) {
      const block = blockOf(`10.${second}.${third}.0`, 24);
      if (![...taken, LIBVIRT_DEFAULT].some((other) => overlap(block, other))) return `10.${second}.${third}.0/24`;
    }
  }
  throw new Error('found no subnet 10.x.y.0/24 that is free on this machine');
}

const overlap = (a: Block, b: Block): boolean => a.first < b.first + b.size && b.first < a.first + a.size;

/** What the machine's addresses, routes and name servers lie in, default routes apart. */
export function takenSubnets(): readonly Block[] {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).filter((one) => one.family === 'IPv4').map((one) => blockOf(one.address, prefixOf(one.netmask))));
  return [...addresses, ...routes(readFileSync('/proc/net/route', 'utf8')), ...nameServers()];
}

/** /proc/net/route: destination and mask as hexadecimal numbers in the machine's byte order (little endian here). */
export function routes(table: string): readonly Block[] {
  return table.split('\n').slice(1).flatMap((line) => {
    const [, destination, , , , , , mask] = line.split('\t');
    if (!destination || !mask || mask.trim() === '00000000') return [];
    const size = 2 ** 32 - swapped(mask.trim());
    return [{ first: swapped(destination), size }];
  });
}

function nameServers(): readonly Block[] {
  try {
    const found = readFileSync('/etc/resolv.conf', 'utf8').matchAll(/^nameserver\s+(\d+\.\d+\.\d+\.\d+)/gm);
    return [...found].map((match) => blockOf(match[1] ?? '', 32));
  } catch {
    return [];
  }
}

const swapped = (hexadecimal: string): number => Buffer.from(hexadecimal, 'hex').reverse().readUInt32BE();

function numberOf(address: string): number {
  return address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
}

const prefixOf = (netmask: string): number => 32 - Math.log2(2 ** 32 - numberOf(netmask));

export function blockOf(address: string, prefix: number): Block {
  const size = 2 ** (32 - prefix);
  return { first: Math.floor(numberOf(address) / size) * size, size };
}

