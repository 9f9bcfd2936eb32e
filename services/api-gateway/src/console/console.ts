/*
 * Somebody looks at a VM:  absent ──Open──▶ open ──Close──▶ closed
 *
 * Recorded before the first byte passes. Who ends it is whoever notices first: the gateway that relayed it,
 * or one that finds that that one is gone; so closing what is closed is no error.
 */
import type { ConsoleCommand } from '@chronovirt/contracts/console/console.commands';
import type { ConsoleEvent } from '@chronovirt/contracts/console/console.events';
import { type Decider, refuse } from '@chronovirt/decider/decider';

export type Console = { readonly status: 'absent' | 'open' | 'closed' };

export const consoleSession: Decider<ConsoleCommand, ConsoleEvent, Console> = {
  category: 'console',
  initial: { status: 'absent' },
  decide(command, state) {
    switch (command.type) {
      case 'OpenConsole':
        return state.status === 'absent' ? [{ type: 'ConsoleOpened', data: command.data }] : refuse('console.exists', { consoleId: command.data.consoleId });
      case 'CloseConsole':
        return state.status === 'open' ? [{ type: 'ConsoleClosed', data: command.data }] : [];
    }
  },
  evolve(_state, event) {
    switch (event.type) {
      case 'ConsoleOpened':
        return { status: 'open' };
      case 'ConsoleClosed':
        return { status: 'closed' };
    }
  },
};
