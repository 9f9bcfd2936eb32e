/*
 * An SSH key that people call by a name:  absent ⇄ registered.
 *
 * Its id is made of its name, so two of one name are one stream, and the second is refused. Deleting it takes it
 * from no machine: those it was given to have it until it is unbound there.
 */
import type { SshKeyCommand } from '@chronovirt/contracts/ssh-key/ssh-key.commands';
import type { SshKeyEvent } from '@chronovirt/contracts/ssh-key/ssh-key.events';
import { type Decider, refuse } from '@chronovirt/decider/decider';

export type KnownKey = { readonly status: 'absent' } | { readonly status: 'registered'; readonly publicKey: string };

export const sshKey: Decider<SshKeyCommand, SshKeyEvent, KnownKey> = {
  category: 'ssh-key',
  initial: { status: 'absent' },
  decide(command, state) {
    switch (command.type) {
      case 'RegisterSshKey': {
        const { keyId, name, publicKey } = command.data;
        if (state.status === 'absent') return [{ type: 'SshKeyRegistered', data: command.data }];
        return state.publicKey === publicKey ? [] : refuse('key.name_taken', { keyId, name, field: 'name' });
      }
      case 'DeleteSshKey':
        return state.status === 'absent' ? refuse('key.not_found', { keyId: command.data.keyId }) : [{ type: 'SshKeyDeleted', data: command.data }];
    }
  },
  evolve(_state, event) {
    switch (event.type) {
      case 'SshKeyRegistered':
        return { status: 'registered', publicKey: event.data.publicKey };
      case 'SshKeyDeleted':
        return { status: 'absent' };
    }
  },
};
