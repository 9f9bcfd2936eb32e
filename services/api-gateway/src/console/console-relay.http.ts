/*
 * Consoles: a WebSocket here, a line to the node's agent there, and bytes between them.
 *
 *   browser ── wss ──▶ gateway (any replica) ── line, by the bus ──▶ agent ── unix socket or libvirt ──▶ guest
 *
 *   connect   origin ─▶ one-time token ─▶ whose it was may still call ─▶ 101
 *   then      the node takes the line ─▶ recorded (ConsoleOpened) ─▶ bytes ─▶ recorded (ConsoleClosed)
 *
 * Whoever has no token gets an HTTP problem and no WebSocket. Behind that a browser hears nothing but close
 * codes: 1000 when the guest's side ended, else 4000 and the status that REST would give, with the problem's
 * code as the reason ("4409 console.in_use").
 *
 * Nothing passes before it is recorded who looks. Back-pressure goes all the way: a browser that does not
 * read stops the line, which stops the agent, which stops reading the guest; and the other way round.
 */
import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { VmId } from '@chronovirt/contracts/ids';
import { idFrom, type ConsoleId } from '@chronovirt/contracts/ids';
import { commandIdOf, newCommandId } from '@chronovirt/event-log/command-id';
import { type Line, LineCut } from '@chronovirt/messaging/line';
import { isRefusal, refuse } from '@chronovirt/decider/decider';
import { type WebSocket, WebSocketServer } from 'ws';
import { sha256 } from '../auth.http.ts';
import type { Gateway } from '../gateway.ts';
import { problemErrorOf, ProblemError, refused } from '../problem.http.ts';
import { statusOfCode } from '../problem.ts';
import type { ApiTokenDocument } from '../tokens/token.projection.ts';
import { consoleSession } from './console.ts';
import { CONSOLE_PATH, isOriginAllowed, SUBPROTOCOLS, tokenShown } from './console-url.ts';
import type { ConsoleStore, TokenGrant } from './console.store.ts';
import type { VmSummary } from '../vms/vm-summary.projection.ts';
import { vmToLookAt } from './vm-to-look-at.ts';

export interface ConsoleSettings {
  /** Origins of pages that may connect, beside the gateway's own. */
  readonly origins: readonly string[];
  /** Without a byte either way for so long, it is over. */
  readonly idleMs: number;
}

export interface ConsoleParts extends ConsoleSettings {
  readonly gateway: Gateway;
  readonly store: ConsoleStore;
}

/** Most consoles through one process. */
const CONSOLES_MAX = 1_000;
/** One message of a client; a screen's are small, a paste may be long. */
const MESSAGE_BYTES_MAX = 1_048_576;
/** Bytes that wait in a client's socket before the line is not read, and until it is again. */
const WAITING_BYTES_MAX = 524_288;
const WAITING_BYTES_LOW = 131_072;
/** A client must answer one ping before the next. */
const PING_MS = 15_000;
const TICK_MS = 5_000;
/** A console of which nobody has said for so long that he relays it has lost its gateway. */
const UNSEEN_SECONDS = 30;
const UNSEEN_AT_ONCE = 100;
const REASON_BYTES_MAX = 123; // RFC 6455, 5.5: a control frame holds 125 bytes, 2 of them the code
const NORMAL = 1_000;
/** How long a process that ends waits for clients to hear it, and for the log. */
const CLOSE_MS = 2_000;

interface Open {
  readonly id: ConsoleId;
  readonly grant: TokenGrant;
  readonly line: Line;
  readonly socket: WebSocket;
  isAlive: boolean;
  activeAt: number;
  /** Ends it, with the code that is recorded. */
  close(because: string): void;
  readonly closed: Promise<void>;
}

export class ConsoleRelay {
  private readonly parts: ConsoleParts;
  private readonly server = new WebSocketServer({
    noServer: true, maxPayload: MESSAGE_BYTES_MAX, perMessageDeflate: false,
    handleProtocols: (offered) => SUBPROTOCOLS.find((one) => offered.has(one)) ?? false,
  });
  private readonly open = new Map<ConsoleId, Open>();
  private readonly timers: readonly NodeJS.Timeout[];
  private opening = 0;
  private ended = false;

  constructor(parts: ConsoleParts) {
    this.parts = parts;
    this.timers = [
      setInterval(() => void this.tick().catch((err: unknown) => { parts.gateway.log.warn({ err }, 'open consoles could not be told of, trying again'); }), TICK_MS),
      setInterval(() => { this.ping(); }, PING_MS),
    ];
  }

  get count(): number {
    return this.open.size;
  }

  /** The server must let requests for a console upgrade and no others: see `isForConsoles`. */
  attach(server: Server): void {
    server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      socket.on('error', () => { socket.destroy(); });
      // A Node that knows no shouldUpgradeCallback asks for everybody.
      if (!isForConsoles(request)) return answerProblem(socket, new ProblemError('route.not_found', { detail: 'No other protocol is spoken at this path.' }));
      this.admit(request).then(
        (grant) => { this.server.handleUpgrade(request, socket, head, (client) => { void this.serve(client, grant, request.socket.remoteAddress ?? null); }); },
        (fault: unknown) => { answerProblem(socket, this.problemOf(fault)); },
      );
    });
  }

  /** What a request may see. Throws a ProblemError. */
  private async admit(request: IncomingMessage): Promise<TokenGrant> {
    const { gateway, store, origins } = this.parts;
    const { origin, host, 'sec-websocket-protocol': subprotocols } = request.headers;
    if (!isOriginAllowed(origin, { host, publicUrl: gateway.consoleUrl(host), allowed: origins })) throw new ProblemError('console.origin_refused');
    if (this.ended || this.open.size + this.opening >= CONSOLES_MAX) throw new ProblemError('gateway.overloaded', { headers: { 'retry-after': '5' } });
    const token = tokenShown(request.url ?? '', subprotocols);
    const grant = token === undefined ? undefined : await store.redeem(sha256(token));
    if (grant === undefined) throw new ProblemError('console.token_unknown');
    if ((await this.revoked([grant.actor])).has(grant.actor)) throw new ProblemError('auth.token_revoked', { detail: 'The API token that asked for this console was revoked.' });
    return grant;
  }

  private problemOf(fault: unknown): ProblemError {
    const error = problemErrorOf(fault);
    this.parts.gateway.log[error.problem.status >= 500 ? 'warn' : 'info']({ code: error.problem.code, ...(error.problem.status >= 500 ? { err: fault } : {}) }, 'console refused');
    return error;
  }

  private async serve(socket: WebSocket, grant: TokenGrant, address: string | null): Promise<void> {
    const { gateway, store } = this.parts;
    // What comes before the node has answered waits in the client's socket.
    socket.pause();
    socket.on('error', () => { socket.terminate(); });
    const gone = new Promise<'gone'>((resolve) => { socket.once('close', () => { resolve('gone'); }); });
    let line: Line | undefined;
    this.opening++;
    try {
      const { vmId, kind } = grant;
      // Whatever has been written about the VM until now: a password that was just set is asked for.
      await gateway.reading.own(vmId);
      const shown = (await gateway.views.vm(vmId))?.text;
      const nodeId = vmToLookAt(vmId, shown);
      if (typeof nodeId !== 'string') throw refused(nodeId);
      const { screenPassword = null } = JSON.parse(shown ?? '{}') as Partial<Pick<VmSummary, 'screenPassword'>>;
      if (kind === 'vnc' && screenPassword !== null && screenPassword.nodeId !== nodeId) throw refused(refuse('vm.moved', { vmId, nodeId }));
      line = await gateway.openLine(nodeId, { vmId, kind, ...(kind === 'vnc' && screenPassword !== null ? { password: screenPassword.sealed } : {}) });
      const id = idFrom('console', newCommandId());
      await store.begin({ id, vmId, actor: grant.actor });
      await this.record({ id, vmId, actor: grant.actor }, { type: 'OpenConsole', data: { consoleId: id, vmId, nodeId, kind, address } });
      if (this.ended) throw new LineCut({ code: 'gateway.stopping' });
      this.relay({ id, grant, line, socket });
      // Whoever left while it was opened closes it like anybody else.
      if (await Promise.race([gone, Promise.resolve('here')]) === 'gone') this.open.get(id)?.close('console.left');
    } catch (fault) {
      line?.destroy();
      const { code } = fault instanceof LineCut ? fault : this.problemOf(fault).problem;
      closeSocket(socket, code);
    } finally {
      this.opening--;
    }
  }

  private relay({ id, grant, line, socket }: Pick<Open, 'id' | 'grant' | 'line' | 'socket'>): void {
    const { gateway, store } = this.parts;
    const { promise: closed, resolve: settle } = Promise.withResolvers<void>();
    let isClosed = false;
    const one: Open = {
      id, grant, line, socket, closed, isAlive: true, activeAt: performance.now(),
      close: (because) => {
        if (isClosed) return;
        isClosed = true;
        const { bytesSent: bytesToGuest, bytesReceived: bytesFromGuest } = line;
        gateway.log.info({ consoleId: id, vmId: grant.vmId, because, bytesToGuest, bytesFromGuest }, 'console closed');
        if (because === 'console.ended') line.end();
        else line.cut(because);
        closeSocket(socket, because);
        this.record({ id, vmId: grant.vmId, actor: grant.actor }, { type: 'CloseConsole', data: { consoleId: id, vmId: grant.vmId, because, bytesToGuest, bytesFromGuest } })
          .then(() => store.end(id))
          // Its row stays, and whoever leads records it once nobody speaks of it.
          .catch((err: unknown) => { gateway.log.warn({ err, consoleId: id }, 'the end of a console was not recorded yet'); })
          .finally(() => {
            this.open.delete(id);
            settle();
          });
      },
    };
    this.open.set(id, one);
    gateway.log.info({ consoleId: id, vmId: grant.vmId, kind: grant.kind, actor: grant.actor }, 'console opened');
    const active = (): void => { one.activeAt = performance.now(); };

    socket.on('message', (data: Buffer | ArrayBuffer | Buffer[]) => {
      active();
      const bytes = Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data as Buffer);
      if (bytes.length > 0 && line.writable && !line.write(bytes)) socket.pause();
    });
    line.on('drain', () => { socket.resume(); });
    socket.on('pong', () => { one.isAlive = true; });
    socket.once('close', () => { one.close('console.left'); });

    line.on('data', (bytes: Buffer) => {
      active();
      socket.send(bytes, { binary: true }, () => { if (socket.bufferedAmount < WAITING_BYTES_LOW && line.isPaused()) line.resume(); });
      if (socket.bufferedAmount > WAITING_BYTES_MAX) line.pause();
    });
    line.once('end', () => { one.close('console.ended'); });
    line.once('close', () => { one.close(line.errored instanceof LineCut ? line.errored.code : 'console.ended'); });
    socket.resume();
  }

  private async record(about: { readonly id: ConsoleId; readonly vmId: VmId; readonly actor: string }, command: Parameters<typeof consoleSession.decide>[0]): Promise<void> {
    const { answer } = await this.parts.gateway.handler.handle(consoleSession, {
      id: commandIdOf(`${command.type}:${about.id}`), stream: `console-${about.id}`, cancels: [], meta: { actor: about.actor, vmId: about.vmId }, command,
    });
    if (isRefusal(answer)) throw refused(answer);
  }

  /** Of these API tokens, those that may not call any more. */
  private async revoked(actors: readonly string[]): Promise<ReadonlySet<string>> {
    const known = await this.parts.gateway.views.documents<ApiTokenDocument>('api_token', [...new Set(actors)]);
    return new Set(known.filter(({ revokedAt }) => revokedAt !== null).map(({ id }) => id));
  }

  private ping(): void {
    for (const one of this.open.values()) {
      // What is not read because the guest does not take it may hold an answer.
      if (!one.isAlive && !one.socket.isPaused) {
        one.close('console.client_gone');
        one.socket.terminate();
        continue;
      }
      one.isAlive = false;
      one.socket.ping();
    }
  }

  private async tick(): Promise<void> {
    const { store, idleMs } = this.parts;
    for (const one of this.open.values()) if (performance.now() - one.activeAt > idleMs) one.close('console.idle');
    const open = [...this.open.values()];
    if (open.length === 0) return;
    const known = await store.seen(open.map(({ id, line }) => ({ id, bytesToGuest: line.bytesSent, bytesFromGuest: line.bytesReceived })));
    // While Postgres could not be reached from here, somebody took this gateway for dead and recorded that. So be it.
    for (const one of open) if (!known.has(one.id)) one.close('gateway.gone');
    const revoked = await this.revoked(open.map(({ grant }) => grant.actor));
    for (const one of open) if (revoked.has(one.grant.actor)) one.close('auth.token_revoked');
  }

  /** Records as closed what a gateway that died had open, and forgets old tokens. Of whoever leads. */
  async sweep(): Promise<void> {
    const { store } = this.parts;
    await store.sweep();
    for (const { id, vmId, actor, bytesToGuest, bytesFromGuest } of await store.unseen(UNSEEN_SECONDS, UNSEEN_AT_ONCE)) {
      await this.record({ id, vmId, actor }, { type: 'CloseConsole', data: { consoleId: id, vmId, because: 'gateway.gone', bytesToGuest, bytesFromGuest } });
      await store.end(id);
    }
  }

  /** Closes all, and resolves when that is recorded. */
  async close(): Promise<void> {
    this.ended = true;
    for (const timer of this.timers) clearInterval(timer);
    const open = [...this.open.values()];
    for (const one of open) one.close('gateway.stopping');
    const over = [...this.server.clients].map((client) => (client.readyState === client.CLOSED ? undefined : new Promise((resolve) => client.once('close', resolve))));
    const late = new AbortController();
    await Promise.race([Promise.all([...open.map(({ closed }) => closed), ...over]), sleep(CLOSE_MS, undefined, { signal: late.signal }).catch(() => undefined)]);
    late.abort();
    for (const client of this.server.clients) client.terminate();
  }
}

/** Whether a request wants a console: every other is answered as if it had not asked for another protocol. */
export const isForConsoles = (request: Pick<IncomingMessage, 'url' | 'headers'>): boolean =>
  request.headers.upgrade?.toLowerCase() === 'websocket' && request.url?.split('?')[0] === CONSOLE_PATH;

export const closeCodeOf = (code: string): number => (code === 'console.ended' ? NORMAL : 4_000 + statusOfCode(code));

const closeSocket = (socket: WebSocket, code: string): void => {
  if (socket.readyState === socket.CLOSED || socket.readyState === socket.CLOSING) return;
  socket.close(closeCodeOf(code), code.slice(0, REASON_BYTES_MAX));
  // A paused socket would never hear that the other end closes as well.
  socket.resume();
};

const answerProblem = (socket: Duplex, { problem, headers }: ProblemError): void => {
  const body = JSON.stringify(problem);
  const lines = [
    `HTTP/1.1 ${String(problem.status)} ${problem.title}`, 'content-type: application/problem+json; charset=utf-8', `content-length: ${String(Buffer.byteLength(body))}`,
    'cache-control: no-store', 'connection: close', ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
  ];
  socket.end(`${lines.join('\r\n')}\r\n\r\n${body}`);
};
