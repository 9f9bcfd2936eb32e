/* Waypoints (libs/observability/src/waypoints.ts) around what a service's process decides and sends. */
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import type { Decider } from '@chronovirt/decider/decider';
import { CommandHandler, type Handled, type Handling } from '@chronovirt/event-log/handle';
import type { EventLog } from '@chronovirt/event-log/log';
import type { Publisher } from '@chronovirt/messaging/publish';
import type { Waypoints } from '@chronovirt/observability/waypoints';

/** `subnet.LeaseAddress`, or for what sagas decide `saga-provision-vm.TakeAnswer.address.run`: one for each answer, however they came together. */
const namesOf = (category: string, command: unknown): readonly string[] => {
  const { type, data } = command as { readonly type: string; readonly data?: { readonly answers?: readonly { readonly step: string; readonly phase: string }[] } };
  return data?.answers?.map(({ step, phase }) => `${category}.TakeAnswer.${step}.${phase}`) ?? [`${category}.${type}`];
};

/** `<name>.before` it is decided, and `<name>.after` the commit and before anybody is told. */
export class HeldHandler extends CommandHandler {
  private readonly waypoints: Waypoints;

  constructor(log: EventLog, waypoints: Waypoints) {
    super(log);
    this.waypoints = waypoints;
  }

  override async handle<C, E extends { readonly type: string; readonly data: object }, S>(decider: Decider<C, E, S>, handling: Handling<C>): Promise<Handled> {
    const names = namesOf(decider.category, handling.command);
    for (const name of names) await this.waypoints.reach(`${name}.before`);
    const handled = await super.handle(decider, handling);
    for (const name of names) await this.waypoints.reach(`${name}.after`);
    return handled;
  }
}

/** `send.<service>.<type>.before` a command is published, and `.after` the bus has stored it. */
export const heldPublisher = (publisher: Publisher, service: string, waypoints: Waypoints): Publisher => ({
  ...publisher,
  async publishCommand(envelope: CommandEnvelope, options) {
    const name = `send.${service}.${envelope.type}`;
    await waypoints.reach(`${name}.before`);
    const published = await publisher.publishCommand(envelope, options);
    await waypoints.reach(`${name}.after`);
    return published;
  },
});
