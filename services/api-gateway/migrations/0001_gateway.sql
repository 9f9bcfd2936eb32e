/*
 * What the gateway shows. Every table here is a projection: filled from the log alone, by the projection
 * runner, and never by hand. `doc` is the document; the other columns are made from it, for filters, sorts
 * and joins. Times are ISO 8601 text in UTC: in that form their order is the order of bytes.
 */

create table gateway.vm_summary (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  name text collate "C" generated always as (doc ->> 'name') stored,
  status text collate "C" generated always as (doc ->> 'status') stored,
  desired text generated always as (doc ->> 'desired') stored,
  observed_state text generated always as (doc -> 'observed' ->> 'state') stored,
  node_id text collate "C" generated always as (doc ->> 'nodeId') stored,
  image_id text generated always as (doc -> 'spec' ->> 'imageId') stored,
  network_id text generated always as (doc -> 'spec' ->> 'networkId') stored,
  address text generated always as (doc ->> 'address') stored,
  vcpus integer generated always as ((doc -> 'spec' ->> 'vcpus')::integer) stored,
  memory_mib integer generated always as ((doc -> 'spec' ->> 'memoryMib')::integer) stored,
  disk_gib integer generated always as ((doc -> 'spec' ->> 'diskGib')::integer) stored,
  tags jsonb generated always as (doc -> 'spec' -> 'tags') stored,
  created_at text collate "C" generated always as (doc ->> 'createdAt') stored,
  search text generated always as (lower(
    coalesce(doc ->> 'name', '') || ' ' || coalesce(doc ->> 'description', '') || ' ' || coalesce(doc -> 'spec' ->> 'tags', '') || ' ' || coalesce(doc ->> 'address', '')
  )) stored
);
create index on gateway.vm_summary (created_at, id);
create index on gateway.vm_summary (name, id);
create index on gateway.vm_summary (memory_mib, id);
create index on gateway.vm_summary (vcpus, id);
create index on gateway.vm_summary (status);
create index on gateway.vm_summary (node_id);
create index on gateway.vm_summary (image_id);
create index on gateway.vm_summary (network_id);
create index on gateway.vm_summary (address);
create index on gateway.vm_summary using gin (tags);
comment on table gateway.vm_summary is 'One row for each VM that is not deleted.';
comment on column gateway.vm_summary.status is 'as stored; that of a VM whose node is silent is shown as unknown, by a join';
comment on column gateway.vm_summary.search is 'what q= looks in, in lower case';

create table gateway.operation (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  status text generated always as (doc ->> 'status') stored,
  kind text generated always as (doc ->> 'kind') stored,
  vm_id text collate "C" generated always as (doc ->> 'vmId') stored,
  parent text collate "C" generated always as (doc ->> 'parent') stored,
  requested_at text collate "C" generated always as (doc ->> 'requestedAt') stored
);
create index on gateway.operation (requested_at, id);
create index on gateway.operation (vm_id, requested_at);
create index on gateway.operation (parent);
create index on gateway.operation (status, requested_at);
comment on table gateway.operation is 'One row for each operation, ended ones included.';

create table gateway.accepted_command (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  vm_id text collate "C" generated always as (doc -> 'envelope' -> 'meta' ->> 'vmId') stored,
  accepted_at text collate "C" generated always as (doc ->> 'acceptedAt') stored
);
create index on gateway.accepted_command (vm_id);
create index on gateway.accepted_command (accepted_at, id);
comment on table gateway.accepted_command is 'Commands that the gateway promised to hand over; those without an answer in event_log.answer are owed still.';

create table gateway.node_summary (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  name text generated always as (doc ->> 'name') stored,
  silent_since text generated always as (doc ->> 'silentSince') stored,
  removed boolean generated always as (doc -> 'removed' <> 'null'::jsonb) stored
);
create index on gateway.node_summary (name);
create index on gateway.node_summary (id) where silent_since is not null;
comment on table gateway.node_summary is 'One row for each node that ever joined, removed ones included.';

create table gateway.holding (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  holder text collate "C" generated always as (doc ->> 'holder') stored,
  vcpus integer generated always as ((doc ->> 'vcpus')::integer) stored,
  memory_mib integer generated always as ((doc ->> 'memoryMib')::integer) stored,
  size_gib integer generated always as ((doc ->> 'sizeGib')::integer) stored
);
create index on gateway.holding (holder) include (vcpus, memory_mib, size_gib);
comment on table gateway.holding is 'Capacity of nodes, addresses of subnets and space of pools that VMs hold: one row for each.';

create table gateway.network (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  name text generated always as (doc ->> 'name') stored
);
create index on gateway.network (name);

create table gateway.subnet (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null
);

create table gateway.image (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  name text generated always as (doc ->> 'name') stored
);
create index on gateway.image (name);

create table gateway.pool (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null
);

create table gateway.api_token (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  sha256 text generated always as (doc ->> 'sha256') stored
);
create index on gateway.api_token (sha256);
comment on column gateway.api_token.sha256 is 'Of the token, in hex. The token itself is nowhere.';

create table gateway.join_token (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  sha256 text generated always as (doc ->> 'sha256') stored
);
create index on gateway.join_token (sha256);

create table gateway.vm_history (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  vm_id text collate "C" generated always as (doc ->> 'vmId') stored
);
create index on gateway.vm_history (vm_id, position);
comment on table gateway.vm_history is 'Which events concern which VM; rows outlive their VM.';
comment on column gateway.vm_history.position is 'of the event';
