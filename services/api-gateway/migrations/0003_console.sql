/*
 * Consoles: what every replica must see and what is worth nothing afterwards. No projections: these tables
 * are written by the gateways themselves, and whoever looked at what stands in the log.
 */

create table gateway.console_token (
  sha256 text collate "C" primary key,
  vm_id text collate "C" not null,
  kind text not null,
  actor text not null,
  expires_at timestamptz not null
);
create index on gateway.console_token (expires_at);
comment on table gateway.console_token is 'Issued and not used yet. Using one takes its row away, so it is used once, at any replica.';
comment on column gateway.console_token.sha256 is 'Of the token, in hex. The token itself is nowhere.';

create table gateway.console_session (
  id text collate "C" primary key,
  vm_id text collate "C" not null,
  actor text not null,
  bytes_to_guest bigint not null default 0,
  bytes_from_guest bigint not null default 0,
  seen_at timestamptz not null default now()
);
create index on gateway.console_session (seen_at);
comment on table gateway.console_session is 'Open consoles. The gateway that relays one says every few seconds that it does; what nobody says any more is recorded as closed.';
