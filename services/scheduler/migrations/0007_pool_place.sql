create table scheduler.pool_place (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null
) with (fillfactor = 70);
comment on table scheduler.pool_place is 'Pools as placement sees them: which nodes see them, what of them is promised, and what is to be done with them.';
