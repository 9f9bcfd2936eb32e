import { type CommandEnvelope, NotACommand, readCommand } from '@chronovirt/contracts/command';
import { type Delivery, Reject } from '@chronovirt/messaging/consume';

/** The command in a delivery; what cannot be one is rejected, and set aside with the reason. */
export const readDelivery = (commands: Parameters<typeof readCommand>[0], delivery: Delivery): CommandEnvelope => {
  try {
    return readCommand(commands, delivery.json());
  } catch (error) {
    throw error instanceof NotACommand ? new Reject(error.message) : error;
  }
};
