/*
 * The log: the one source of truth, append-only.
 *
 * Positions must rise in the order of commits and have no gaps, so that a reader's checkpoint is one number
 * and nothing behind it ever appears late. A sequence cannot promise that: it gives numbers away before the
 * commit. So every append takes the row of `head` last, and holds it to the commit. That would make every
 * append wait for the disk of the one before it, therefore `append` takes a whole group of commands at once.
 *
 * Who may do what:
 *   cv_log     cannot log in; owns everything here; `append` runs as it
 *   services   may read, and execute the functions below, and nothing else (see `admit`)
 *   owner      made this, and is still refused by the triggers
 */

do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'cv_log') then
    create role cv_log nologin;
  end if;
  if not pg_catalog.pg_has_role(current_user, 'cv_log', 'member') then
    execute pg_catalog.format('grant cv_log to %I', current_user);
  end if;
end $$;

create schema event_log;

create table event_log.event (
  position bigint primary key,
  stream text not null check (stream <> ''),
  version integer not null check (version > 0),
  id uuid not null,
  type text not null check (type <> ''),
  shape smallint not null check (shape > 0),
  data jsonb not null,
  meta jsonb not null,
  hash bytea not null check (octet_length(hash) = 32),
  recorded_at timestamptz not null,
  unique (stream, version)
);
comment on table event_log.event is 'What has happened, in the order in which it was committed. Never changed, never deleted.';
comment on column event_log.event.position is '1, 2, 3 … without gaps over the whole log, in the order of commits';
comment on column event_log.event.version is '1, 2, 3 … within the stream';
comment on column event_log.event.shape is 'the shape of `data`; older ones are upcast as they are read';
comment on column event_log.event.hash is 'SHA-256 of the RFC 8785 form of {data, id, meta, shape, stream, type, version}';
comment on column event_log.event.recorded_at is 'the clock of the log at the append; never used to order anything';

create table event_log.stream (
  stream text primary key,
  version integer not null
) with (fillfactor = 90);
comment on table event_log.stream is 'Version of the last event of each stream.';

create table event_log.answer (
  command_id uuid primary key,
  answer jsonb not null,
  request_hash text check (request_hash ~ '^[0-9a-f]{64}$'),
  actor text not null,
  refused text,
  stream text,
  answered_at timestamptz not null
);
create index on event_log.answer (answered_at);
comment on table event_log.answer is 'The answer to each command, in the commit of its events. Kept 30 days.';
comment on column event_log.answer.request_hash is 'SHA-256 of the canonical request, for commands with a key of the caller''s';
comment on column event_log.answer.refused is 'the code of a refusal; null when the command was obeyed';

create table event_log.head (
  one boolean primary key default true check (one),
  position bigint not null
) with (fillfactor = 50);
insert into event_log.head (position) values (0);
comment on table event_log.head is 'The position of the last event: the one row is the lock that orders all appends.';

create table event_log.snapshot (
  stream text not null,
  writer name not null,
  version integer not null,
  build text not null,
  state jsonb not null,
  saved_at timestamptz not null,
  primary key (stream, writer)
);
comment on table event_log.snapshot is 'A cache of folded states. May be emptied at any time.';
comment on column event_log.snapshot.writer is 'the role that folded it: nobody takes a state from another';
comment on column event_log.snapshot.build is 'the code that folded it: another build folds anew';

create table event_log.checkpoint (
  name text primary key,
  position bigint not null check (position >= 0),
  state jsonb not null,
  moved_at timestamptz not null
);
comment on table event_log.checkpoint is 'How far those have come that any service may lead, such as the relay.';

/*
 * Appends a group of commands, each with 0..n events of one stream and its answer. One row of the arrays is
 * one event, or one command without events (`p_type` null). Rows of a command stand together, in order.
 *
 *   p_command     number of the command in this group, rising
 *   p_index       number of the event in its command, from 0
 *   p_stream      null for an answer without a stream
 *   p_version     version that was decided on, plus p_index
 *   p_answer, p_request_hash   in the first row of a command
 *
 * Returns one row for each command:
 *   appended      first_position is the position of its first event
 *   answered      it was answered before: answer and request hash as stored; nothing was written
 *   conflict      the stream is not at the version that was decided on; nothing was written
 *   again         the same command stands earlier in this group: ask once more
 *
 * A refused command refuses the later ones of the same stream in this group, because they were decided
 * after it. Versions and answers are looked up by scalar subqueries: joins were half as fast.
 */
create function event_log.append(
  p_command integer[], p_index integer[], p_command_id uuid[], p_stream text[], p_version integer[], p_answer jsonb[], p_request_hash text[],
  p_id uuid[], p_type text[], p_shape smallint[], p_data jsonb[], p_meta jsonb[], p_hash bytea[]
) returns table (outcome text, first_position bigint, answer jsonb, request_hash text, recorded_at text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  head bigint;
  at timestamptz;
  through text := set_config('event_log.through', 'append', true);
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'event_log.append needs read committed: what it reads must be newer than its lock';
  end if;
  -- The order, and the only lock. A statement of its own, so that the next statement's snapshot is newer than the lock.
  select h.position into head from event_log.head h where h.one for update;
  at := clock_timestamp();
  return query
    with given as materialized (
      select u.*,
        (select a.answer from event_log.answer a where a.command_id = u.command_id) as earlier,
        coalesce((select s.version from event_log.stream s where s.stream = u.stream), 0) as current,
        first_value(u.command) over (partition by u.command_id order by u.o) <> u.command as twin
      from unnest(p_command, p_index, p_command_id, p_stream, p_version, p_answer, p_request_hash, p_id, p_type, p_shape, p_data, p_meta, p_hash)
        with ordinality u(command, index, command_id, stream, version, answer, request_hash, id, type, shape, data, meta, hash, o)
    ),
    fresh as (
      select g.*, g.earlier is null and not g.twin as fresh,
        -- Events that stand before this row in the same stream and group.
        count(*) filter (where g.type is not null and g.earlier is null and not g.twin) over (partition by g.stream order by g.o rows between unbounded preceding and 1 preceding) as before
      from given g
    ),
    judged as (
      select f.*, f.fresh and bool_and(not f.fresh or f.stream is null or f.version = f.current + f.before) over (partition by f.stream order by f.o) as passed
      from fresh f
    ),
    numbered as materialized (
      select j.*, head + count(*) filter (where j.passed and j.type is not null) over (order by j.o) as position
      from judged j
    ),
    events as (
      insert into event_log.event (position, stream, version, id, type, shape, data, meta, hash, recorded_at)
      select n.position, n.stream, n.version + 1, n.id, n.type, n.shape, n.data, n.meta, n.hash, at from numbered n where n.passed and n.type is not null order by n.o
    ),
    streams as (
      insert into event_log.stream as s (stream, version)
      select n.stream, max(n.version) + 1 from numbered n where n.passed and n.type is not null group by n.stream
      on conflict (stream) do update set version = excluded.version
    ),
    answers as (
      insert into event_log.answer (command_id, answer, request_hash, actor, refused, stream, answered_at)
      select n.command_id, n.answer, n.request_hash, n.meta ->> 'actor', n.answer ->> 'refused', n.stream, at from numbered n where n.passed and n.index = 0 order by n.o
    ),
    moved as (
      update event_log.head h set position = (select max(n.position) from numbered n)
      where h.one and exists (select from numbered n where n.passed and n.type is not null)
      -- Once for the whole group, with the position it came to: who has seen that much already need not look.
      returning pg_notify('event_log', h.position::text)
    )
    select case when n.passed then 'appended' when n.earlier is not null then 'answered' when n.twin then 'again' else 'conflict' end,
      case when n.passed and n.type is not null then n.position end,
      n.earlier,
      case when n.earlier is not null then (select a.request_hash from event_log.answer a where a.command_id = n.command_id) end,
      to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    from numbered n where n.index = 0 order by n.o;
  through := set_config('event_log.through', '', true);
end $$;

/* Forgets answers that are older than 30 days, the life of a caller's key; at most `p_limit` of them. Returns how many. */
create function event_log.forget_answers(p_limit integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  forgotten bigint;
  through text := set_config('event_log.through', 'forget_answers', true);
begin
  with old as (select a.command_id from event_log.answer a where a.answered_at < now() - interval '30 days' order by a.answered_at limit p_limit)
  delete from event_log.answer a using old where a.command_id = old.command_id;
  get diagnostics forgotten = row_count;
  through := set_config('event_log.through', '', true);
  return forgotten;
end $$;

create function event_log.save_snapshot(p_stream text, p_version integer, p_build text, p_state jsonb) returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$
  insert into event_log.snapshot as s (stream, writer, version, build, state, saved_at) values (p_stream, session_user, p_version, p_build, p_state, now())
  on conflict (stream, writer) do update set version = excluded.version, build = excluded.build, state = excluded.state, saved_at = excluded.saved_at
  where s.version < excluded.version or s.build <> excluded.build;
$$;

create function event_log.forget_snapshots() returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$ delete from event_log.snapshot $$;

/* Moves a checkpoint, if it still stands where the caller believes (0 when there is none). False: someone else leads. */
create function event_log.move_checkpoint(p_name text, p_from bigint, p_to bigint, p_state jsonb) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  insert into event_log.checkpoint (name, position, state, moved_at) select p_name, 0, '{}', now() where p_from = 0 on conflict (name) do nothing;
  update event_log.checkpoint set position = p_to, state = p_state, moved_at = now() where name = p_name and position = p_from;
  return found;
end $$;

create function event_log.refuse() returns trigger language plpgsql as $$
begin
  raise exception '% of event_log.% is refused: history is added to, by the functions of event_log, and never changed', tg_op, tg_table_name using errcode = 'insufficient_privilege';
end $$;

/*
 * Only the functions get through, not even their owner by hand: `event_log.through` is set while they run.
 * As a condition of the trigger it costs an append nothing; a call for each table cost a tenth.
 */
create trigger refuse before update or delete or truncate on event_log.event for each statement execute function event_log.refuse();
create trigger only_append before insert on event_log.event for each statement
  when (current_user <> 'cv_log' or current_setting('event_log.through', true) is distinct from 'append') execute function event_log.refuse();
create trigger refuse before update or truncate on event_log.answer for each statement execute function event_log.refuse();
create trigger only_append before insert on event_log.answer for each statement
  when (current_user <> 'cv_log' or current_setting('event_log.through', true) is distinct from 'append') execute function event_log.refuse();
create trigger only_forget before delete on event_log.answer for each statement
  when (current_user <> 'cv_log' or current_setting('event_log.through', true) is distinct from 'forget_answers') execute function event_log.refuse();
create trigger refuse before delete or truncate on event_log.stream for each statement execute function event_log.refuse();
create trigger only_append before insert or update on event_log.stream for each statement
  when (current_user <> 'cv_log' or current_setting('event_log.through', true) is distinct from 'append') execute function event_log.refuse();
create trigger refuse before insert or delete or truncate on event_log.head for each statement execute function event_log.refuse();
create trigger only_append before update on event_log.head for each statement
  when (current_user <> 'cv_log' or current_setting('event_log.through', true) is distinct from 'append') execute function event_log.refuse();
-- Always: also under session_replication_role = replica.
alter table event_log.event enable always trigger refuse, enable always trigger only_append;
alter table event_log.answer enable always trigger refuse, enable always trigger only_append, enable always trigger only_forget;
alter table event_log.stream enable always trigger refuse, enable always trigger only_append;
alter table event_log.head enable always trigger refuse, enable always trigger only_append;

/* Gives a service's role what it may have here. Called by the migrator for each service. */
create function event_log.admit(p_role name) returns void language plpgsql as $$
begin
  execute pg_catalog.format('grant usage on schema event_log to %I', p_role);
  execute pg_catalog.format('grant select on event_log.event, event_log.stream, event_log.answer, event_log.head, event_log.snapshot, event_log.checkpoint to %I', p_role);
  execute pg_catalog.format('grant execute on function event_log.append, event_log.forget_answers, event_log.save_snapshot, event_log.forget_snapshots, event_log.move_checkpoint to %I', p_role);
end $$;

revoke execute on all functions in schema event_log from public;

alter schema event_log owner to cv_log;
do $$
declare
  one record;
begin
  for one in select c.relname from pg_catalog.pg_class c where c.relnamespace = 'event_log'::regnamespace and c.relkind = 'r' loop
    execute pg_catalog.format('alter table event_log.%I owner to cv_log', one.relname);
  end loop;
  for one in select p.oid::regprocedure as signature from pg_catalog.pg_proc p where p.pronamespace = 'event_log'::regnamespace loop
    execute pg_catalog.format('alter function %s owner to cv_log', one.signature);
  end loop;
end $$;

-- The owner itself needs no more than this, and has no more than this.
revoke all on event_log.event, event_log.answer, event_log.stream, event_log.head from cv_log;
grant select, insert on event_log.event to cv_log;
grant select, insert, delete on event_log.answer to cv_log;
grant select, insert, update on event_log.stream to cv_log;
grant select, update on event_log.head to cv_log;
