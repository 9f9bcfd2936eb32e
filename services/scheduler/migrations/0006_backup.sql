create table scheduler.backup (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null
);
comment on table scheduler.backup is 'Backups that are not deleted: what VMs can be made of, and what is to be taken away.';
