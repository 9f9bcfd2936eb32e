/* Keys that people call by a name: what `GET /v1/keys` shows. */
import { categoryOf, idOfStream } from '@chronovirt/contracts/ids';
import type { SshKeyEvent } from '@chronovirt/contracts/ssh-key/ssh-key.events';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';

export interface SshKeyDocument {
  readonly id: string;
  readonly name: string;
  readonly publicKey: string;
  /** SHA-256 of the key, as OpenSSH writes it. */
  readonly fingerprint: string;
  readonly made: boolean;
  readonly createdBy: string;
  readonly createdAt: string;
  readonly position: number;
  /** Of the key's stream: its ETag. */
  readonly version: number;
}

export const sshKeyView: Projection<SshKeyDocument> = {
  name: 'gateway.ssh_key',
  version: 1,
  keys: (event) => (categoryOf(event.stream) === 'ssh-key' ? [idOfStream(event.stream)] : []),
  fold: (_before, recorded, key) => {
    const event = recorded as RecordedEvent & SshKeyEvent;
    switch (event.type) {
      case 'SshKeyRegistered': {
        const { name, publicKey, fingerprint, made } = event.data;
        return { id: key, name, publicKey, fingerprint, made, createdBy: event.meta.actor, createdAt: event.recordedAt, position: event.position, version: event.version };
      }
      case 'SshKeyDeleted':
        return undefined;
    }
  },
};
