-- What storage decides by, folded from the log. Rows are documents; see libs/event-log/src/projection-runner.ts.

create table storage.image_user (
  id text primary key,
  doc jsonb not null,
  position bigint not null,
  image_id text generated always as (doc ->> 'imageId') stored,
  medium_id text generated always as (doc ->> 'mediumId') stored
);
comment on table storage.image_user is 'One document for each VM that is not deleted: what its disk began as, and what is in its drive.';
create index image_user_image on storage.image_user (image_id);
create index image_user_medium on storage.image_user (medium_id);
