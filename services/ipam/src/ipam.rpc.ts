import { Controller, Inject } from '@nestjs/common';
import { Payload } from '@nestjs/microservices';
import { networkCommands } from '@chronovirt/contracts/network/network.commands';
import { subnetCommands } from '@chronovirt/contracts/subnet/subnet.commands';
import type { Answer } from '@chronovirt/decider/decider';
import { readDelivery } from '@chronovirt/host/read-delivery';
import type { Delivery } from '@chronovirt/messaging/consume';
import { Consumes } from '@chronovirt/messaging/strategy';
import { commandsOf } from '@chronovirt/messaging/topology';
import type { ipam } from './ipam.consumer.ts';

export const IPAM = Symbol('ipam');

const commands = { ...networkCommands, ...subnetCommands };

/** Ipam's ears on the bus: parse, hand over, answer. */
@Controller()
export class IpamRpc {
  constructor(@Inject(IPAM) private readonly obeyed: ReturnType<typeof ipam>) {}

  // Leases of one subnet gather in the handler's mailbox, so they may come all at once.
  @Consumes(commandsOf('ipam'), { concurrency: 256, window: 1_024, confirmed: false })
  obey(@Payload() delivery: Delivery): Promise<Answer> {
    return this.obeyed(readDelivery(commands, delivery));
  }
}
