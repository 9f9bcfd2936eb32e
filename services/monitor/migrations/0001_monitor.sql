create table monitor.node_presence (
  id text primary key,
  doc jsonb not null,
  position bigint not null
);
comment on table monitor.node_presence is 'Which nodes should be heard, and which are recorded as silent.';
