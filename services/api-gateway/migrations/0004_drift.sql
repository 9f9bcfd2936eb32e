create table gateway.drift (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  node_id text collate "C" generated always as (doc ->> 'nodeId') stored,
  vm_id text collate "C" generated always as (doc ->> 'vmId') stored,
  class text collate "C" generated always as (doc ->> 'class') stored
);
create index on gateway.drift (vm_id);
comment on table gateway.drift is 'What differs now on the nodes from what they were told; what is settled stands in the log.';
create table gateway.drift_policy (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null
);
comment on table gateway.drift_policy is 'What is done about a class of drift; no row: it is shown.';
