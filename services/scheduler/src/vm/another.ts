/* What a machine that is made after another keeps of it, and what it does not. */
import type { NodeId } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { Restore, VmSpec } from '@chronovirt/contracts/vm/vm.events';
import { hostnameOf } from './domain-plan.ts';

/** One of the same kind, with another name and identity, for as long as somebody says. What it begins as is in its disks: it needs no image. */
export const anotherOf = ({ expiresAt: _, autostart: __, poolId: ___, ...spec }: VmSpec, { name, network, nodeId }: { readonly name: string; readonly network: NetworkPlan; readonly nodeId: NodeId | null }): VmSpec => ({
  ...spec, name, networkId: network.networkId, subnetId: network.subnetId, nodeId, protected: false, media: null, imageId: null,
  cloudInit: spec.cloudInit === null ? null : { ...spec.cloudInit, hostname: hostnameOf(name) },
});

/** Networks of interfaces beside the first, at most one in each, and the names of those that are gone. */
export const networksBeside = (first: NetworkPlan, others: readonly NetworkPlan[], known: (networkId: string) => NetworkPlan | undefined): Pick<Restore, 'nics' | 'without'> => {
  const wanted = others.filter(({ networkId }) => networkId !== first.networkId);
  const nics = wanted.flatMap(({ networkId }) => known(networkId) ?? []);
  const without = wanted.flatMap(({ networkId, name }) => (known(networkId) === undefined ? [name] : []));
  return { ...(nics.length === 0 ? {} : { nics }), ...(without.length === 0 ? {} : { without }) };
};
