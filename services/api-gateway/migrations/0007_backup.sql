create table gateway.backup (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  vm_id text collate "C" generated always as (doc ->> 'vmId') stored
);
create index on gateway.backup (vm_id, id);
comment on table gateway.backup is 'One row for each backup that is not deleted, those of deleted VMs included.';
