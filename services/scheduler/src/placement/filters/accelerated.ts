import type { Filter } from '../candidate.ts';

/** Who requires KVM is not given an emulator. */
export const accelerated: Filter = (node, want) =>
  want.accel === 'any' || node.description?.accel === 'kvm' ? undefined : `has no KVM: enable VT-x/AMD-V in BIOS (node ${node.name}); ${node.description?.accelBecause ?? ''}`;
