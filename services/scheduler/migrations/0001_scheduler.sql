-- What a scheduler decides by, folded from the log. Rows are documents; see libs/event-log/src/projection-runner.ts.

create table scheduler.node_capacity (
  id text primary key,
  doc jsonb not null,
  position bigint not null
) with (fillfactor = 70);
comment on table scheduler.node_capacity is 'One document for each node: what it is, what of it is promised, whether it is heard.';

create table scheduler.catalog (
  id text primary key,
  doc jsonb not null,
  position bigint not null
);
comment on table scheduler.catalog is 'Images and networks that a VM may be asked for with.';

create table scheduler.vm_index (
  id text primary key,
  doc jsonb not null,
  position bigint not null
) with (fillfactor = 70);
comment on table scheduler.vm_index is 'Where every VM is that is not deleted, and what is owed to it.';

create table scheduler.open_saga (
  id text primary key,
  doc jsonb not null,
  position bigint not null
) with (fillfactor = 50);
comment on table scheduler.open_saga is 'Sagas that have not ended: what a leader takes over when nobody moves them.';
