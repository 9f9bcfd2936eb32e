/* Backups that are only remembered, of disks that hold nothing: for simulated nodes. */
import type { BackupTargetId } from '@chronovirt/contracts/ids';
import { refuse } from '../answer.ts';
import type { BackupPlace, BackupStore } from './backup-store.os.ts';
import { fileOfUnit, type Manifest } from './manifest.ts';

export function createMemoryBackups(targetId: BackupTargetId): BackupStore {
  const whole = new Map<string, Manifest>();
  const sha256 = '0'.repeat(64);
  const pathOf = ({ vmId, backupId }: Pick<BackupPlace, 'vmId' | 'backupId'>): string => `/simulated/backups/${vmId}/${backupId}`;
  return {
    targets: () => Promise.resolve([{ targetId, name: 'simulated' }]),
    missing: (wanted) => Promise.resolve(wanted === targetId ? undefined : refuse('backup.target_missing', { targetId: wanted })),
    manifest: ({ backupId }) => {
      const manifest = whole.get(backupId);
      return Promise.resolve(manifest === undefined ? undefined : { manifest, sha256 });
    },
    begin: (place, disks) => Promise.resolve(disks.map(({ unit }) => `${pathOf(place)}/${fileOfUnit(unit)}`)),
    copy: () => Promise.resolve(),
    finish: ({ targetId: at, vmId, backupId }, more, files) => {
      whole.set(backupId, { format: 1, backupId, vmId, targetId: at, takenAt: new Date(0).toISOString(), ...more, files: files.map((file) => ({ name: fileOfUnit(file.unit), ...file, bytes: 1, sha256 })) });
      return Promise.resolve();
    },
    remove: ({ backupId }) => {
      whole.delete(backupId);
      return Promise.resolve();
    },
    verify: (_, chain) => {
      const lost = chain.find(({ backupId }) => !whole.has(backupId));
      return Promise.resolve(lost === undefined ? undefined : refuse('backup.damaged', { backupId: lost.backupId, file: fileOfUnit(0), says: 'the file is not there' }));
    },
    readable: (of, chain, unit) => Promise.resolve(`${pathOf({ ...of, backupId: chain.at(-1)?.backupId ?? 'backup_' })}/${fileOfUnit(unit)}`),
  };
}
