create table scheduler.deleting_volume (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null
);
comment on table scheduler.deleting_volume is 'Volumes that are being deleted: each has a saga that takes its bytes, its space and its record.';
