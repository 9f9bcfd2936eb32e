create table gateway.backup_policy (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null
);
comment on table gateway.backup_policy is 'When VMs are backed up by themselves, and what is kept.';
