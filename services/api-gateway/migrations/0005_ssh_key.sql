create table gateway.ssh_key (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null
);
comment on table gateway.ssh_key is 'Public halves of SSH keys that people call by a name.';
