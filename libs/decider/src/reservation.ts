/*
 * Something that may be held once: a VM's name, a network's name, a machine's id. Each has a stream of its
 * own, so that claiming one waits for no other. What is held is named by the SHA-256 of its text, because
 * a stream's name takes no arbitrary characters.
 */
import { type Decider, refuse } from './decider.ts';

export type Reservation = { readonly owner: string; readonly label: string } | null;

export type ReservationCommand =
  | { readonly type: 'Claim'; readonly owner: string; readonly label: string }
  | { readonly type: 'Unclaim'; readonly owner: string };

export type ReservationEvent =
  | { readonly type: 'Claimed'; readonly data: { readonly owner: string; readonly label: string } }
  | { readonly type: 'Unclaimed'; readonly data: { readonly owner: string } };

/** `taken` is the code of the refusal when somebody else holds it: 'vm.name_taken'. */
export const reservation = (category: string, taken: string): Decider<ReservationCommand, ReservationEvent, Reservation> => ({
  category,
  initial: null,
  decide(command, state) {
    switch (command.type) {
      case 'Claim':
        if (state === null) return [{ type: 'Claimed', data: { owner: command.owner, label: command.label } }];
        return state.owner === command.owner ? [] : refuse(taken, { name: state.label, heldBy: state.owner });
      case 'Unclaim':
        return state?.owner === command.owner ? [{ type: 'Unclaimed', data: { owner: command.owner } }] : [];
    }
  },
  evolve(_state, event) {
    switch (event.type) {
      case 'Claimed':
        return event.data;
      case 'Unclaimed':
        return null;
    }
  },
});
