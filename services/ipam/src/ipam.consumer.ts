/*
 * What ipam does with the commands that come in: networks by name, their subnets, and the leases in them.
 * Joined to ports, so the simulation runs this very code.
 */
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import { idFrom, streamOf } from '@chronovirt/contracts/ids';
import type { NetworkCommand } from '@chronovirt/contracts/network/network.commands';
import type { SubnetCommand } from '@chronovirt/contracts/subnet/subnet.commands';
import { type Answer, type Facts, isRefusal, refuse } from '@chronovirt/decider/decider';
import { reservation } from '@chronovirt/decider/reservation';
import type { CommandHandler, Handling } from '@chronovirt/event-log/handle';
import { obeyOrRehearse } from '@chronovirt/event-log/rehearse';
import { network } from './network/network.ts';
import { rangeOf, textOf } from './subnet/address.ts';
import { subnet } from './subnet/subnet.ts';

export const networkName = reservation('network-name', 'network.name_taken');

export interface IpamPorts {
  readonly handler: CommandHandler;
  readonly commandIdOf: (key: string) => string;
  readonly keyOf: (text: string) => string;
}

/** Obeys a command, or tells what it was answered before; one that rehearses another is told what that would do. */
export const ipam = (ports: IpamPorts) => (envelope: CommandEnvelope): Promise<Answer> =>
  obeyOrRehearse(ports.handler, envelope, (meant, handler) => obeying({ ...ports, handler })(meant));

const obeying = ({ handler, commandIdOf, keyOf }: IpamPorts) => {
  /** Each part has a stream of its own, so each has an id of its own made from the command's: repeated as a whole, done once. */
  const part = (envelope: CommandEnvelope, name: string): Omit<Handling<never>, 'stream' | 'command'> =>
    ({ id: commandIdOf(`${envelope.id}:${name}`), cancels: [], meta: envelope.meta });

  const createNetwork = async (envelope: CommandEnvelope, { networkId, name, kind, cidr, reserved, boot }: Extract<NetworkCommand, { type: 'CreateNetwork' }>['data']): Promise<Answer> => {
    const earlier = await handler.earlier(envelope);
    if (earlier !== undefined) return earlier;
    // Its parts come one after another: what does not exist yet cannot be as anybody has seen it.
    if (envelope.expected !== undefined) return (await handler.refuse(envelope, refuse('precondition.failed', { expected: envelope.expected, version: 0, since: [] }))).answer;
    const range = rangeOf(cidr);
    if (isRefusal(range)) return (await handler.refuse(envelope, range)).answer;
    const nameStream = streamOf(networkName.category, keyOf(name));
    const claimed = await handler.handle(networkName, { ...part(envelope, 'name'), stream: nameStream, command: { type: 'Claim', owner: networkId, label: name } });
    if (isRefusal(claimed.answer)) return (await handler.refuse(envelope, claimed.answer)).answer;
    const subnetId = idFrom('subnet', networkId.slice('network_'.length));
    const made = await handler.handle(subnet, { ...part(envelope, 'subnet'), stream: streamOf(subnet.category, subnetId), command: { type: 'CreateSubnet', data: { subnetId, networkId, cidr, reserved } } });
    if (isRefusal(made.answer)) {
      await handler.handle(networkName, { ...part(envelope, 'name-back'), stream: nameStream, command: { type: 'Unclaim', owner: networkId } });
      return (await handler.refuse(envelope, made.answer)).answer;
    }
    // The kernel allows 15 characters for an interface: a prefix and the last ten digits of the id.
    const plan = { networkId, subnetId, name, kind, cidr: range.cidr, gateway: textOf(range.gateway), prefix: range.prefix, bridge: `cvbr-${networkId.slice(-10)}`, ...(boot === undefined ? {} : { boot }) };
    const recorded = await handler.handle(network, { id: envelope.id, requestHash: envelope.requestHash, cancels: envelope.cancels, meta: envelope.meta, stream: streamOf(network.category, networkId), command: { type: 'RecordNetwork', data: plan } });
    return recorded.answer;
  };

  /**
   * The subnet goes first: it refuses while addresses are leased. What a caller sees change of a network is its
   * subnet's, so the version that he has seen is the subnet's.
   */
  const deleteNetwork = async (envelope: CommandEnvelope, networkId: Extract<NetworkCommand, { type: 'DeleteNetwork' }>['data']['networkId']): Promise<Answer> => {
    const earlier = await handler.earlier(envelope);
    if (earlier !== undefined) return earlier;
    const { state } = await handler.log.load(streamOf(network.category, networkId), network);
    if (state.status === 'live') {
      const { subnetId, name } = state.plan;
      const emptied = await handler.handle(subnet, { ...part(envelope, 'subnet'), expected: envelope.expected, stream: streamOf(subnet.category, subnetId), command: { type: 'DeleteSubnet', data: { subnetId } } });
      if (isRefusal(emptied.answer)) return (await handler.refuse(envelope, emptied.answer)).answer;
      await handler.handle(networkName, { ...part(envelope, 'name'), stream: streamOf(networkName.category, keyOf(name)), command: { type: 'Unclaim', owner: networkId } });
    }
    return (await handler.handle(network, { id: envelope.id, requestHash: envelope.requestHash, cancels: envelope.cancels, meta: envelope.meta, stream: streamOf(network.category, networkId), command: { type: 'DeleteNetwork', data: { networkId } } })).answer;
  };

  const leaseAddresses = async (envelope: CommandEnvelope, { vmId, subnetIds }: Extract<SubnetCommand, { type: 'LeaseAddresses' }>['data']): Promise<Answer> => {
    const earlier = await handler.earlier(envelope);
    if (earlier !== undefined) return earlier;
    const nics: Facts[] = [];
    for (const subnetId of subnetIds) {
      const { answer } = await handler.handle(subnet, { ...part(envelope, subnetId), stream: streamOf(subnet.category, subnetId), command: { type: 'LeaseAddress', data: { subnetId, vmId } } });
      if (isRefusal(answer)) return (await handler.refuse(envelope, answer)).answer;
      nics.push({ subnetId, ...answer.facts });
    }
    return (await handler.refuse(envelope, { version: 0, facts: { nics } })).answer;
  };

  const releaseAddresses = async (envelope: CommandEnvelope, { vmId, subnetIds }: Extract<SubnetCommand, { type: 'ReleaseAddresses' }>['data']): Promise<Answer> => {
    for (const subnetId of subnetIds) {
      const released = await handler.handle(subnet, { ...part(envelope, subnetId), cancels: envelope.cancels.map((id) => commandIdOf(`${id}:${subnetId}`)), stream: streamOf(subnet.category, subnetId), command: { type: 'ReleaseAddress', data: { subnetId, vmId } } });
      if (isRefusal(released.answer)) return released.answer;
    }
    return (await handler.refuse(envelope, { version: 0 })).answer;
  };

  return async (envelope: CommandEnvelope): Promise<Answer> => {
    const command = envelope as unknown as NetworkCommand | SubnetCommand;
    switch (command.type) {
      case 'CreateNetwork':
        return createNetwork(envelope, command.data);
      case 'DeleteNetwork':
        return deleteNetwork(envelope, command.data.networkId);
      case 'LeaseAddresses':
        return leaseAddresses(envelope, command.data);
      case 'ReleaseAddresses':
        return releaseAddresses(envelope, command.data);
      case 'RecordNetwork':
        return (await handler.handle(network, { ...envelope, stream: streamOf(network.category, command.data.networkId), command })).answer;
      default:
        return (await handler.handle(subnet, { id: envelope.id, requestHash: envelope.requestHash, expected: envelope.expected, cancels: envelope.cancels, meta: envelope.meta, stream: streamOf(subnet.category, command.data.subnetId), command })).answer;
    }
  };
};
