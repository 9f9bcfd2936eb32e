import type { Filter } from '../candidate.ts';

/** Disks that begin as those of a backup are made on a node that sees where it lies. */
export const seesTarget: Filter = (node, { targetId }) =>
  (targetId === undefined || targetId === null || node.description?.backupTargets?.some((target) => target.targetId === targetId) === true ? undefined : 'it does not see the backup target');
