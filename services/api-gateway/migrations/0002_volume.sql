create table gateway.volume (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  system boolean generated always as ((doc ->> 'system')::boolean) stored,
  vm_id text collate "C" generated always as (doc ->> 'vmId') stored,
  node_id text collate "C" generated always as (doc ->> 'nodeId') stored
);
create index on gateway.volume (system, id);
create index on gateway.volume (vm_id);
comment on table gateway.volume is 'One row for each volume that is not deleted, those that VMs were made with included.';
