import { backupEvents } from './backup/backup.events.ts';
import { backupPolicyEvents } from './backup-policy/backup-policy.events.ts';
import { bootJobEvents } from './boot-job/boot-job.events.ts';
import { consoleEvents } from './console/console.events.ts';
import { driftEvents } from './drift/drift.events.ts';
import type { EventTable } from './event.ts';
import { imageAccessEvents, imageEvents, imageImportEvents } from './image/image.events.ts';
import { networkEvents } from './network/network.events.ts';
import { nodeEvents } from './node/node.events.ts';
import { operationEvents } from './operation/operation.events.ts';
import { poolEvents } from './pool/pool.events.ts';
import { presenceEvents } from './presence/presence.events.ts';
import { reservationEvents } from './reservation/reservation.events.ts';
import { sagaEvents } from './saga/saga.events.ts';
import { sshKeyEvents } from './ssh-key/ssh-key.events.ts';
import { subnetEvents } from './subnet/subnet.events.ts';
import { tokenEvents } from './token/token.events.ts';
import { vmEvents } from './vm/vm.events.ts';
import { volumeEvents } from './volume/volume.events.ts';

/** Every event that may stand in the log, by name. Names are unique across categories. */
export const allEvents: EventTable = {
  ...vmEvents, ...nodeEvents, ...networkEvents, ...subnetEvents, ...poolEvents, ...volumeEvents,
  ...imageEvents, ...presenceEvents, ...tokenEvents, ...operationEvents, ...reservationEvents, ...sagaEvents,
  ...consoleEvents, ...imageAccessEvents, ...imageImportEvents, ...driftEvents, ...sshKeyEvents, ...backupEvents, ...backupPolicyEvents, ...bootJobEvents,
};
