drop table scheduler.deleting_volume;

create table scheduler.volume_work (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null
);
comment on table scheduler.volume_work is 'Volumes that are made, worked on, deleted, or owe something: each has, or calls for, a saga.';
