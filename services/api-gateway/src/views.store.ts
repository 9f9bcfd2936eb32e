/*
 * Reads what the projections hold. Documents are kept as text and leave as text: nothing is parsed here that
 * nobody changes. Reads of single VMs that wait at the same moment share one round trip.
 */
import { Gather } from '@chronovirt/event-log/gather';
import { rowsOf } from '@chronovirt/event-log/sql';
import type pg from 'pg';
import type { ImageImportDocument } from './images/image-import.projection.ts';
import { encodeCursor, type Codec, type VmListQuery } from './vms/vm-list.ts';
import { listSql } from './vms/vm-list-sql.ts';
import { type VmSummary, whileSilent } from './vms/vm-summary.projection.ts';

export const base64url: Codec = {
  encode: (text) => Buffer.from(text, 'utf8').toString('base64url'),
  decode: (text) => Buffer.from(text, 'base64url').toString('utf8'),
};

/** Projections that are read by id alone. */
export type DocumentTable = 'operation' | 'vm_summary' | 'node_summary' | 'network' | 'subnet' | 'image' | 'pool' | 'volume' | 'backup' | 'backup_policy' | 'api_token' | 'ssh_key' | 'boot_job' | 'boot_run' | 'join_token' | 'image_import' | 'drift' | 'drift_policy';

export interface StoredVm {
  /** JSON. */
  readonly text: string;
  readonly version: number;
}

export interface VmPage {
  /** Each VM as JSON text. */
  readonly items: readonly string[];
  readonly next: string | null;
  readonly count: number | undefined;
}

export interface Use {
  readonly holder: string;
  readonly holdings: number;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly sizeGib: number;
}

export type OperationFilters = Readonly<Partial<Record<'kind' | 'vm_id' | 'parent', string>>>;

type VmRow = readonly [id: string, document: string, nodeName: string | null, silentSince: string | null];

const GROUP_MAX = 64;
const WAITING_MAX = 5_000;

/** The VM's text as it is shown now: as it is stored, unless its node is silent. */
const shown = (text: string, nodeName: string | null, silentSince: string | null): string =>
  nodeName === null || silentSince === null ? text : JSON.stringify(whileSilent(JSON.parse(text) as VmSummary, { name: nodeName, silentSince }));

export class Views {
  private readonly pool: pg.Pool;
  private readonly vms: Gather<string, StoredVm | undefined>;
  private readonly positions: Gather<{ readonly stream: string; readonly version: number }, number | undefined>;

  constructor(pool: pg.Pool) {
    this.pool = pool;
    this.vms = new Gather(async (ids) => {
      const rows = await rowsOf<readonly [...VmRow, number]>(this.pool, 'gateway.vms', VMS, [ids]);
      const found = new Map(rows.map(([id, document, nodeName, silentSince, version]) => [id, { text: shown(document, nodeName, silentSince), version }]));
      return ids.map((id) => ({ result: found.get(id) }));
    }, { groupMax: GROUP_MAX, callsMax: 2, waitingMax: WAITING_MAX });
    this.positions = new Gather(async (wanted) => {
      const rows = await rowsOf<readonly [number, number]>(this.pool, 'gateway.positions', POSITIONS, [wanted.map(({ stream }) => stream), wanted.map(({ version }) => version)]);
      const found = new Map(rows);
      return wanted.map((_, index) => ({ result: found.get(index + 1) }));
    }, { groupMax: GROUP_MAX, callsMax: 2, waitingMax: WAITING_MAX });
  }

  vm(id: string): Promise<StoredVm | undefined> {
    return this.vms.add(id);
  }

  /** Names of VMs that are not deleted, by id. */
  async vmNames(ids: readonly string[]): Promise<ReadonlyMap<string, string>> {
    const rows = await rowsOf<readonly [string, string]>(this.pool, 'gateway.vm_names', `select id, doc ->> 'name' from gateway.vm_summary where id = any($1)`, [ids]);
    return new Map(rows);
  }

  /** The stream that says which addresses of a network are given. */
  async subnetStreamOf(networkId: string): Promise<string | undefined> {
    const [row] = await rowsOf<readonly [string]>(this.pool, 'gateway.subnet_of', `select doc ->> 'subnetId' from gateway.network where id = $1`, [networkId]);
    return row === undefined ? undefined : `subnet-${row[0]}`;
  }

  async vmPage(query: VmListQuery): Promise<VmPage> {
    const { text, values, countText, countValues } = listSql(query);
    const [rows, counted] = await Promise.all([
      rowsOf<readonly [...VmRow, ...(string | number)[]]>(this.pool, undefined, text, values),
      query.count ? rowsOf<readonly [number]>(this.pool, undefined, countText, countValues) : undefined,
    ]);
    const page = rows.length > query.limit ? rows.slice(0, query.limit) : rows;
    const last = rows.length > query.limit ? page[page.length - 1] : undefined;
    return {
      items: page.map((row) => shown(row[1], row[2], row[3])),
      next: last === undefined ? null : encodeCursor({ id: last[0], values: last.slice(4) as (string | number)[] }, query.sort, base64url),
      count: counted?.[0]?.[0],
    };
  }

  async document<D>(table: DocumentTable, id: string): Promise<D | undefined> {
    const [row] = await rowsOf<readonly [string]>(this.pool, `gateway.${table}.one`, `select doc::text from gateway.${table} where id = $1`, [id]);
    return row === undefined ? undefined : (JSON.parse(row[0]) as D);
  }

  async documents<D>(table: DocumentTable, ids: readonly string[]): Promise<readonly D[]> {
    if (ids.length === 0) return [];
    const rows = await rowsOf<readonly [string]>(this.pool, `gateway.${table}.some`, `select doc::text from gateway.${table} where id = any($1)`, [ids]);
    return rows.map(([text]) => JSON.parse(text) as D);
  }

  /** Documents by id, behind `after`, one more than `limit` when there are more. */
  async page<D>(table: DocumentTable, { after, limit, where = 'true', values = [] }: { readonly after: string; readonly limit: number; readonly where?: string; readonly values?: readonly unknown[] }): Promise<readonly D[]> {
    const text = `select doc::text from gateway.${table} where id > $1 and ${where} order by id limit $2`;
    const rows = await rowsOf<readonly [string]>(this.pool, undefined, text, [after, limit + 1, ...values]);
    return rows.map(([document]) => JSON.parse(document) as D);
  }

  /** Newest first; `before` is [requestedAt, id] of the last one seen. */
  async operations<D>({ before, limit, filters, statuses }: { readonly before: readonly [string, string] | undefined; readonly limit: number; readonly filters: OperationFilters; readonly statuses?: readonly string[] | undefined }): Promise<readonly D[]> {
    const values: unknown[] = [limit + 1];
    const where = Object.entries(filters).flatMap(([column, value]) => {
      if (value === undefined) return [];
      values.push(value);
      return [`${column} = $${String(values.length)}`];
    });
    if (statuses !== undefined) {
      values.push(statuses);
      where.push(`status = any($${String(values.length)}::text[])`);
    }
    if (before !== undefined) {
      values.push(before[0], before[1]);
      where.push(`(requested_at, id) < ($${String(values.length - 1)}, $${String(values.length)})`);
    }
    const text = `select doc::text from gateway.operation ${where.length === 0 ? '' : `where ${where.join(' and ')}`} order by requested_at desc, id desc limit $1`;
    const rows = await rowsOf<readonly [string]>(this.pool, undefined, text, values);
    return rows.map(([document]) => JSON.parse(document) as D);
  }

  /** What is held of each holder: capacity of nodes, addresses of subnets, space of pools. */
  async uses(holders: readonly string[]): Promise<ReadonlyMap<string, Use>> {
    const rows = await rowsOf<readonly [string, number, number, number, number]>(this.pool, 'gateway.uses',
      'select holder, count(*), sum(vcpus), sum(memory_mib), sum(size_gib) from gateway.holding where holder = any($1) group by holder', [holders]);
    return new Map(rows.map(([holder, holdings, vcpus, memoryMib, sizeGib]) => [holder, { holder, holdings, vcpus, memoryMib, sizeGib }]));
  }

  /** The id of an image. */
  async imageCalled(name: string): Promise<string | undefined> {
    const [row] = await rowsOf<readonly [string]>(this.pool, 'gateway.image_called', `select id from gateway.image where doc ->> 'name' = $1 limit 1`, [name]);
    return row?.[0];
  }

  /** Of these families, the version that each means. */
  async currentImages(families: readonly string[]): Promise<ReadonlySet<string>> {
    const rows = await rowsOf<readonly [string]>(this.pool, 'gateway.current_images',
      `select distinct on (doc ->> 'family') id from gateway.image where doc ->> 'family' = any($1) order by doc ->> 'family', (doc ->> 'currentSince')::bigint desc`, [families]);
    return new Set(rows.map(([id]) => id));
  }

  /** VMs and further volumes whose disks began as each of these images. */
  async imageUses(ids: readonly string[]): Promise<ReadonlyMap<string, number>> {
    const rows = await rowsOf<readonly [string, number]>(this.pool, 'gateway.image_uses', `
      select image, count(*)::int from (
        select image_id as image from gateway.vm_summary where image_id = any($1)
        union all select doc ->> 'imageId' from gateway.volume where not system and doc ->> 'imageId' = any($1)) used group by image`, [ids]);
    return new Map(rows);
  }

  /** Whether an image is made of this content. */
  async hasImageOf(sha256: string): Promise<boolean> {
    return (await rowsOf(this.pool, 'gateway.image_of', 'select 1 from gateway.image where sha256 = $1 limit 1', [sha256])).length > 0;
  }

  /** SHA-256 of the images that are made of this file on the nodes, as they were registered. */
  async sumsOfImageFile(file: string): Promise<readonly string[]> {
    return (await rowsOf<readonly [string]>(this.pool, 'gateway.image_sums', `select distinct sha256 from gateway.image where doc ->> 'file' = $1 order by sha256`, [file])).map(([sha256]) => sha256);
  }

  /** What is on its way into the store of images, oldest first. */
  async openImports(limit: number): Promise<readonly ImageImportDocument[]> {
    const rows = await rowsOf<readonly [string]>(this.pool, 'gateway.open_imports', `select doc::text from gateway.image_import where status = 'open' order by position limit $1`, [limit]);
    return rows.map(([document]) => JSON.parse(document) as ImageImportDocument);
  }

  async token(sha256: string): Promise<{ readonly id: string; readonly revokedAt: string | null } | undefined> {
    const [row] = await rowsOf<readonly [string, string | null]>(this.pool, 'gateway.token', `select id, doc ->> 'revokedAt' from gateway.api_token where sha256 = $1`, [sha256]);
    return row === undefined ? undefined : { id: row[0], revokedAt: row[1] };
  }

  async joinToken(sha256: string): Promise<string | undefined> {
    const [row] = await rowsOf<readonly [string]>(this.pool, 'gateway.join', 'select id from gateway.join_token where sha256 = $1', [sha256]);
    return row?.[0];
  }

  /** Commands that were accepted for a VM whose receiver has not answered, with the envelope's data. */
  async acceptedVm(vmId: string): Promise<{ readonly commandId: string; readonly operationId: string; readonly type: string; readonly data: unknown } | undefined> {
    const [row] = await rowsOf<readonly [string, string, string, unknown]>(this.pool, 'gateway.accepted_vm', `
      select c.id, c.doc ->> 'operationId', c.doc -> 'envelope' ->> 'type', c.doc -> 'envelope' -> 'data' from gateway.accepted_command c
      where c.vm_id = $1 and not exists (select from event_log.answer a where a.command_id = c.id::uuid)`, [vmId]);
    return row === undefined ? undefined : { commandId: row[0], operationId: row[1], type: row[2], data: row[3] };
  }

  /** Accepted and not answered, oldest first. Answers are forgotten after 30 days, so older ones are not asked for. */
  async owedCommands(limit: number): Promise<readonly unknown[]> {
    const rows = await rowsOf<readonly [unknown]>(this.pool, 'gateway.owed', `
      select c.doc -> 'envelope' from gateway.accepted_command c
      where c.accepted_at > to_char(now() at time zone 'UTC' - interval '20 days', 'YYYY-MM-DD') and not exists (select from event_log.answer a where a.command_id = c.id::uuid)
      order by c.accepted_at, c.id limit $1`, [limit]);
    return rows.map(([envelope]) => envelope);
  }

  async answers(commandIds: readonly string[]): Promise<ReadonlyMap<string, { readonly answer: unknown; readonly at: string }>> {
    if (commandIds.length === 0) return new Map();
    const rows = await rowsOf<readonly [string, unknown, string]>(this.pool, 'gateway.answers', `
      select command_id, answer, to_char(answered_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') from event_log.answer where command_id = any($1::uuid[])`, [commandIds]);
    return new Map(rows.map(([id, answer, at]) => [id, { answer, at }]));
  }

  /** Positions of the events that concern a VM, behind `after`, rising; one more than `limit` when there are more. */
  async history(vmId: string, after: number, limit: number): Promise<readonly number[]> {
    const rows = await rowsOf<readonly [number]>(this.pool, 'gateway.history', 'select position from gateway.vm_history where vm_id = $1 and position > $2 order by position limit $3', [vmId, after, limit + 1]);
    return rows.map(([position]) => position);
  }

  /** Of these VMs, those whose node is silent, and that node. */
  async silentNodes(vmIds: readonly string[]): Promise<ReadonlyMap<string, { readonly name: string; readonly silentSince: string }>> {
    if (vmIds.length === 0) return new Map();
    const rows = await rowsOf<readonly [string, string, string]>(this.pool, 'gateway.silent', `
      select v.id, n.name, n.silent_since from gateway.vm_summary v join gateway.node_summary n on n.id = v.node_id where v.id = any($1) and n.silent_since is not null`, [vmIds]);
    return new Map(rows.map(([id, name, silentSince]) => [id, { name, silentSince }]));
  }

  /** Position of a stream's event of that version. */
  positionOf(stream: string, version: number): Promise<number | undefined> {
    return this.positions.add({ stream, version });
  }
}

const POSITIONS = `
  select u.o, e.position from unnest($1::text[], $2::int[]) with ordinality u(stream, version, o)
  join event_log.event e on e.stream = u.stream and e.version = u.version`;

const VMS = `
  select v.id, v.doc::text, n.name, n.silent_since, (v.doc ->> 'version')::int
  from gateway.vm_summary v left join gateway.node_summary n on n.id = v.node_id and n.silent_since is not null
  where v.id = any($1)`;
