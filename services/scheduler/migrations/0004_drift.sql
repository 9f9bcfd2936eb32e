create table scheduler.open_drift (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null
);
comment on table scheduler.open_drift is 'What differs now on the nodes from what they were told.';
create table scheduler.drift_policy (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null
);
comment on table scheduler.drift_policy is 'What is done about a class of drift; no row: it is shown.';
