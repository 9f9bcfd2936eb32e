/** Lists by id, for everything that is few: nodes, networks, images, pools, tokens. */
import { z } from 'zod';
import { malformed } from './problem.http.ts';
import { base64url, type DocumentTable, type Views } from './views.store.ts';

export const PageQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(1_000).default(100),
  cursor: z.string().max(200).optional().describe('The `next` of the page before'),
}).meta({ id: 'PageQuery' });

const ID = /^[a-z]+_[0-9a-f]{32}$/;

export const pageOf = async <D extends { readonly id: string }, V>(
  views: Views, table: DocumentTable, { limit, cursor }: z.infer<typeof PageQuery>, shown: (documents: readonly D[]) => readonly V[] | Promise<readonly V[]>, where?: string, values: readonly unknown[] = [],
): Promise<{ readonly items: readonly V[]; readonly next: string | null }> => {
  const after = cursor === undefined ? '' : base64url.decode(cursor);
  if (cursor !== undefined && !ID.test(after)) throw malformed([{ path: 'query.cursor', code: 'invalid', message: 'is not a cursor of this list: begin without one' }]);
  const found = await views.page<D>(table, { after, limit, ...(where === undefined ? {} : { where }), values });
  const items = found.slice(0, limit);
  const last = found.length > limit ? items[items.length - 1] : undefined;
  return { items: await shown(items), next: last === undefined ? null : base64url.encode(last.id) };
};
