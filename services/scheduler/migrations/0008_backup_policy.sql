create table scheduler.backup_policy (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null
);
comment on table scheduler.backup_policy is 'Schedules of backups, and for which time each VM was last backed up.';
