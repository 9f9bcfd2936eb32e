/*
 * Networks that somebody has changed by hand: what differs, and how they come back without disturbing guests.
 *
 * An update of a table of DHCP that changes nothing makes libvirt write the rules of the network anew, and start
 * its DHCP server if it does not run; the bridge and whoever is on it stay. Only what the running network was made
 * with wants another one: then the guests' interfaces, which stay up, are put on the new bridge, whose address on
 * the wire is the old one's. libvirt does not do that by itself.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type NetworkId, uuidOf } from '@chronovirt/contracts/ids';
import type { NetworkPlan } from '@chronovirt/contracts/network/network.events';
import type { Difference } from '@chronovirt/contracts/drift/drift.events';
import type { Libvirt } from '@chronovirt/libvirt/connection';
import { readDomain } from '@chronovirt/libvirt/domain-xml';
import { isNoDomain, isNoNetwork } from '@chronovirt/libvirt/errors';
import { readNetwork } from '@chronovirt/libvirt/network-xml';
import { attributeOf, childOf, childrenOf } from '@chronovirt/libvirt/xml';
import type { Refusal } from '../answer.ts';
import type { Hypervisor } from '../hypervisor.ts';
import type { HostNet } from '../network/host-net.os.ts';
import { CHAINS, networkDifferences, type SeenNetwork, usesIptables } from '../network/network-differences.ts';
import { addressesOf, hostXml, macOf, networkXml } from '../network/network-xml.ts';

export interface NetworkPorts {
  readonly fast: Libvirt;
  readonly slow: Libvirt;
  readonly net: HostNet | undefined;
  readonly inTurn: <T>(key: string, work: () => Promise<T>) => Promise<T>;
  /** libvirt's no, in our words; throws what is no answer. */
  readonly refusalFor: (error: unknown, what: string, object: string) => Refusal;
}

/** libvirt writes its rules anew now and then, and they are gone for a moment. */
const AGAIN_MS = 2_000;
/** Of a table so many lines are mended one by one, half a second each; with more a new network is quicker. */
const LINES_MENDED_MAX = 8;
const START_MS = 120_000;

/** undefined: there is none. */
export async function findNetwork(libvirt: Libvirt, { networkId }: NetworkPlan) {
  try {
    return await libvirt.networkLookupByUuid({ uuid: uuidOf(networkId) });
  } catch (error) {
    if (isNoNetwork(error)) return undefined;
    throw error;
  }
}

export function createNetworks({ fast, slow, net, inTurn, refusalFor }: NetworkPorts): Pick<Hypervisor, 'compareNetworks' | 'restoreNetwork'> {
  const find = (plan: NetworkPlan) => findNetwork(fast, plan);

  const look = async (plan: NetworkPlan): Promise<SeenNetwork | undefined> => {
    const network = await find(plan);
    if (network === undefined) return undefined;
    try {
      const [active, persistent] = await Promise.all([fast.networkIsActive({ network }), fast.networkIsPersistent({ network })]);
      const [defined, running, autostart, rules] = await Promise.all([
        fast.networkGetXmlDesc({ network, flags: persistent ? ['inactive'] : [] }), active ? fast.networkGetXmlDesc({ network }) : undefined,
        persistent && fast.networkGetAutostart({ network }), active ? net?.rules() : undefined,
      ]);
      const known = rules !== undefined && usesIptables(rules, await fast.connectGetLibVersion());
      return { persistent, autostart, defined: readNetwork(defined), running: running === undefined ? undefined : readNetwork(running), udp: active ? await net?.udp() : undefined, rules: known ? rules : undefined };
    } catch (error) {
      // It went away while it was looked at.
      if (isNoNetwork(error)) return undefined;
      throw error;
    }
  };

  const differ = async (plan: NetworkPlan): Promise<readonly Difference[]> => {
    const differences = networkDifferences(plan, await look(plan));
    if (!differences.some(({ field }) => field === 'firewall' || field === 'dhcp')) return differences;
    await delay(AGAIN_MS);
    return networkDifferences(plan, await look(plan));
  };

  /** The ends of guests' interfaces, which outlive a bridge. */
  const taps = async ({ name }: NetworkPlan): Promise<readonly string[]> => {
    const found: string[] = [];
    for (const domain of await fast.connectListAllDomains({ filter: ['active'] })) {
      const xml = await slow.domainGetXmlDesc({ domain }).catch((error: unknown) => {
        if (isNoDomain(error)) return undefined;
        throw error;
      });
      if (xml === undefined) continue;
      for (const one of childrenOf(childOf(readDomain(xml).root, 'devices'), 'interface')) {
        const tap = attributeOf(one, 'dev', 'target');
        if (attributeOf(one, 'network', 'source') === name && tap !== undefined) found.push(tap);
      }
    }
    return found;
  };

  /** Whoever was on a bridge of that name is on the one that there is now. */
  const attachTaps = async (plan: NetworkPlan): Promise<void> => {
    if (net !== undefined) for (const tap of await taps(plan)) await net.attach(tap, plan.bridge);
  };

  const bringBack = async (plan: NetworkPlan): Promise<void> => {
    const differences = await differ(plan);
    if (differences.length === 0) return;
    const isOf = (where: Difference['where']) => (one: Difference): boolean => one.where === where;
    const redefine = differences.some((one) => one.field === 'network' || one.field === 'persistent' || isOf('defined')(one));
    const network = (redefine ? await fast.networkDefineXml({ xml: networkXml(plan) }) : undefined) ?? (await find(plan));
    if (network === undefined) throw new Error(`network ${plan.name} went away`);
    await fast.networkSetAutostart({ network, autostart: true });

    const running = differences.filter(isOf('running'));
    const lines = running.filter(({ field }) => field.startsWith('dhcp.') && field !== 'dhcp.range');
    if ((await fast.networkIsActive({ network })) && (lines.length < running.length || lines.length > LINES_MENDED_MAX)) await slow.networkDestroy({ network });
    if (!(await fast.networkIsActive({ network }))) {
      await slow.networkCreate({ network }, { timeoutMs: START_MS });
    } else {
      for (const { field, expected, seen } of lines) {
        const mac = field.slice('dhcp.'.length);
        await slow.networkUpdate({ network, command: expected === null ? 'delete' : seen === null ? 'addLast' : 'modify', section: 'ipDhcpHost', xml: hostXml({ mac, address: String(expected ?? seen) }), flags: ['live'] });
      }
    }
    // Also after an earlier try that came no further.
    await attachTaps(plan);

    const left = await differ(plan);
    if (left.some(({ field }) => field === 'firewall')) {
      for (const { table, from, chain } of CHAINS) {
        await net?.iptables('-t', table, '-N', chain);
        if (await net?.iptables('-t', table, '-C', from, '-j', chain) === false) await net?.iptables('-t', table, '-I', from, '-j', chain);
      }
    }
    if (left.some(({ field }) => field === 'firewall' || field === 'dhcp')) {
      const [address] = addressesOf(plan);
      const host = address === undefined ? undefined : { mac: macOf(address), address };
      if (host === undefined) {
        // Without a table there is no line that could be said again.
        await slow.networkDestroy({ network });
        await slow.networkCreate({ network }, { timeoutMs: START_MS });
        await attachTaps(plan);
      } else {
        await slow.networkUpdate({ network, command: 'modify', section: 'ipDhcpHost', xml: hostXml(host), flags: ['live'] });
      }
    }
    const still = await differ(plan);
    if (still.length > 0) throw new Error(`it still differs: ${still.map(({ field }) => field).slice(0, 5).join(', ')}`);
  };

  return {
    compareNetworks: async (plans) => {
      const found = new Map<NetworkId, readonly Difference[]>();
      for (const plan of plans) found.set(plan.networkId, await inTurn(uuidOf(plan.networkId), () => differ(plan)));
      return found;
    },
    restoreNetwork: (plan) => inTurn(uuidOf(plan.networkId), async () => {
      try {
        await bringBack(plan);
        return undefined;
      } catch (error) {
        return refusalFor(error, 'bring back', `network ${plan.name}`);
      }
    }),
  };
}
