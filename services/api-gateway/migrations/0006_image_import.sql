alter table gateway.image add column sha256 text collate "C" generated always as (doc ->> 'sha256') stored;
create index on gateway.image (sha256);

create table gateway.image_import (
  id text collate "C" primary key,
  doc jsonb not null,
  position bigint not null,
  status text generated always as (doc ->> 'status') stored
);
create index on gateway.image_import (status, id);
comment on table gateway.image_import is 'One row for each image that was on its way into the store: those that are open are carried out by whoever leads.';
