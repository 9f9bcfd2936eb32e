create table scheduler.timer (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null
);
comment on table scheduler.timer is 'What is to be done at a time: volumes that are kept until then.';
