import type { NodeFeature } from '@chronovirt/contracts/node/node.events';
import type { Filter } from '../candidate.ts';

const HOW: Readonly<Record<NodeFeature, string>> = { uefi: 'install the package ovmf there', 'uefi-secure': 'install the package ovmf there', tpm: 'install the packages swtpm and swtpm-tools there' };

/** Firmware and TPM are there for whoever wants them. */
export const equipped: Filter = (node, { firmware = 'bios', tpm = false }) => {
  const wanted: readonly NodeFeature[] = [...(firmware === 'bios' ? [] : [firmware]), ...(tpm ? ['tpm' as const] : [])];
  const lacking = wanted.find((feature) => node.description?.features?.includes(feature) !== true);
  return lacking === undefined ? undefined : `has no ${lacking}: ${HOW[lacking]}, and start its agent again`;
};
