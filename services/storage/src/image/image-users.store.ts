import type pg from 'pg';
import { NAMED_MAX } from '@chronovirt/decider/decider';
import { rowsOf } from '@chronovirt/event-log/sql';
import type { ImageUsers } from './image-user.projection.ts';

/** VMs that need an image, by name, and how many they are. */
export const usersIn = async (pool: pg.Pool, imageId: string): Promise<ImageUsers> => {
  const rows = await rowsOf<readonly [id: string, name: string, count: number]>(pool, 'storage.image_users', USERS, [imageId, NAMED_MAX]);
  return { count: rows[0]?.[2] ?? 0, vms: rows.map(([id, name]) => ({ id, name })) };
};

const USERS = `
  select id, doc ->> 'name', count(*) over ()::int from storage.image_user
  where image_id = $1 or medium_id = $1 or $1 in (doc ->> 'driversId', doc ->> 'kernelId', doc ->> 'initrdId') order by doc ->> 'name' limit $2`;
