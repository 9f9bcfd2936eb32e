import type { NetworkDocument, SubnetDocument } from './network.projection.ts';

export interface NetworkShown extends NetworkDocument {
  /** Addresses that are never leased. */
  readonly reserved: readonly string[];
  /** Its subnet's; null until that is known. */
  readonly version: number | null;
  readonly addresses: { readonly usable: number; readonly leased: number; readonly reserved: number; readonly free: number };
}

/** Usable: all but the network's own address, the gateway's and the broadcast address. */
export const networkShown = (network: NetworkDocument, subnet: SubnetDocument | undefined, leased: number): NetworkShown => {
  const reserved = subnet?.reserved ?? [];
  const usable = Math.max(0, 2 ** (32 - network.prefix) - 3);
  return { ...network, version: subnet?.version ?? null, reserved, addresses: { usable, leased, reserved: reserved.length, free: Math.max(0, usable - leased - reserved.length) } };
};
