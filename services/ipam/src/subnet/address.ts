import { refuse, type Refusal } from '@chronovirt/decider/decider';

/** '10.0.0.1' as a number of 32 bits. */
export const numberOf = (address: string): number => address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);

export const textOf = (address: number): string => [24, 16, 8, 0].map((shift) => String(Math.floor(address / 2 ** shift) % 256)).join('.');

/** 52:54 and the address's four bytes: locally administered, individual (IEEE 802). */
export const macOf = (address: number): string => ['52', '54', ...[24, 16, 8, 0].map((shift) => (Math.floor(address / 2 ** shift) % 256).toString(16).padStart(2, '0'))].join(':');

export interface Range {
  /** With the host bits cleared. */
  readonly cidr: string;
  readonly prefix: number;
  /** The first address of all: what guests route through. */
  readonly gateway: number;
  /** First and last address that may be leased: neither network, gateway nor broadcast. */
  readonly first: number;
  readonly last: number;
}

export const rangeOf = (cidr: string): Range | Refusal => {
  const [address, bits] = cidr.split('/');
  const prefix = Number(bits);
  if (address === undefined || !Number.isInteger(prefix) || prefix < 8 || prefix > 30) return refuse('subnet.prefix_not_supported', { cidr, prefixMin: 8, prefixMax: 30 });
  const size = 2 ** (32 - prefix);
  const network = Math.floor(numberOf(address) / size) * size;
  return { cidr: `${textOf(network)}/${String(prefix)}`, prefix, gateway: network + 1, first: network + 2, last: network + size - 2 };
};
