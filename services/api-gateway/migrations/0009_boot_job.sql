create table gateway.boot_job (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null
);
comment on table gateway.boot_job is 'Scripts that VMs can be given to run at a boot, but for those that come with the platform.';

create table gateway.boot_run (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  vm_id text collate "C" generated always as (doc ->> 'vmId') stored,
  status text generated always as (doc ->> 'status') stored
);
create index on gateway.boot_run (vm_id, id);
create index on gateway.boot_run (status) where status = 'pending';
comment on table gateway.boot_run is 'Which VM is to run what at its next boot, and how that went.';
