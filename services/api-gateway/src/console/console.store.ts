/* One-time tokens, and which consoles are open where: seen by every replica. Times are Postgres' own, so that replicas agree. */
import { rowsOf } from '@chronovirt/event-log/sql';
import type { ConsoleId, VmId } from '@chronovirt/contracts/ids';
import type { ConsoleKind } from '@chronovirt/contracts/console/console.events';
import type pg from 'pg';

export interface TokenGrant {
  readonly vmId: VmId;
  readonly kind: ConsoleKind;
  /** Id of the API token that it was issued to. */
  readonly actor: string;
}

export interface OpenSession {
  readonly id: ConsoleId;
  readonly vmId: VmId;
  readonly actor: string;
  readonly bytesToGuest: number;
  readonly bytesFromGuest: number;
}

type SessionRow = readonly [ConsoleId, VmId, string, number, number];

export class ConsoleStore {
  private readonly pool: pg.Pool;

  constructor(pool: pg.Pool) {
    this.pool = pool;
  }

  /** Until when it may be used, ISO 8601. */
  async issue(sha256: string, { vmId, kind, actor }: TokenGrant, lifetimeSeconds: number): Promise<string> {
    const [row] = await rowsOf<readonly [string]>(this.pool, 'gateway.console_issue', `
      insert into gateway.console_token (sha256, vm_id, kind, actor, expires_at) values ($1, $2, $3, $4, now() + make_interval(secs => $5))
      returning to_char(expires_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`, [sha256, vmId, kind, actor, lifetimeSeconds]);
    if (row === undefined) throw new Error('Postgres inserted a token and returned nothing');
    return row[0];
  }

  /** What a token is for, once; undefined for one that is unknown, used or too old. */
  async redeem(sha256: string): Promise<TokenGrant | undefined> {
    const [row] = await rowsOf<readonly [VmId, ConsoleKind, string]>(this.pool, 'gateway.console_redeem', `
      delete from gateway.console_token where sha256 = $1 and expires_at > now() returning vm_id, kind, actor`, [sha256]);
    return row === undefined ? undefined : { vmId: row[0], kind: row[1], actor: row[2] };
  }

  async begin({ id, vmId, actor }: Pick<OpenSession, 'id' | 'vmId' | 'actor'>): Promise<void> {
    await rowsOf(this.pool, 'gateway.console_begin', 'insert into gateway.console_session (id, vm_id, actor) values ($1, $2, $3) on conflict do nothing', [id, vmId, actor]);
  }

  /** Says that these are relayed still, and how much has passed. Returns those of them that are not recorded as closed. */
  async seen(sessions: readonly Pick<OpenSession, 'id' | 'bytesToGuest' | 'bytesFromGuest'>[]): Promise<ReadonlySet<ConsoleId>> {
    const rows = await rowsOf<readonly [ConsoleId]>(this.pool, 'gateway.console_seen', `
      update gateway.console_session s set bytes_to_guest = u.to_guest, bytes_from_guest = u.from_guest, seen_at = now()
      from unnest($1::text[], $2::bigint[], $3::bigint[]) u(id, to_guest, from_guest) where s.id = u.id returning s.id`,
    [sessions.map(({ id }) => id), sessions.map(({ bytesToGuest }) => bytesToGuest), sessions.map(({ bytesFromGuest }) => bytesFromGuest)]);
    return new Set(rows.map(([id]) => id));
  }

  /** Those that nobody has spoken of for so long. */
  async unseen(forSeconds: number, limit: number): Promise<readonly OpenSession[]> {
    const rows = await rowsOf<SessionRow>(this.pool, 'gateway.console_unseen', `
      select id, vm_id, actor, bytes_to_guest, bytes_from_guest from gateway.console_session where seen_at < now() - make_interval(secs => $1) order by seen_at limit $2`, [forSeconds, limit]);
    return rows.map(([id, vmId, actor, bytesToGuest, bytesFromGuest]) => ({ id, vmId, actor, bytesToGuest, bytesFromGuest }));
  }

  async end(id: ConsoleId): Promise<void> {
    await rowsOf(this.pool, 'gateway.console_end', 'delete from gateway.console_session where id = $1', [id]);
  }

  /** Forgets tokens that nobody used in time. */
  async sweep(): Promise<void> {
    await rowsOf(this.pool, 'gateway.console_sweep', 'delete from gateway.console_token where expires_at < now()', []);
  }
}
