/*
 * The physical limit beside which everything else is read: a bare node:http server in a process of its own
 * that makes one durable insert of 1 kB for each POST, and answers a fixed text to each GET.
 *
 *     node bench/floor.ts serve <postgres url>      prints the port it listens on
 */
import { fork } from 'node:child_process';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import autocannon from 'autocannon';
import pg from 'pg';
import { type Api, call } from './client.ts';
import { percentile } from './report.ts';

const serve = async (postgresUrl: string): Promise<void> => {
  const pool = new pg.Pool({ connectionString: postgresUrl, max: 4 });
  await pool.query('create table if not exists public.bench_floor (id bigserial primary key, body jsonb not null)');
  const body = JSON.stringify({ text: 'x'.repeat(1_000) });
  const server = createServer((request, response) => {
    if (request.method !== 'POST') {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end('{"ok":true}');
      return;
    }
    request.resume();
    pool.query('insert into public.bench_floor (body) values ($1)', [body]).then(
      () => { response.writeHead(202, { 'content-type': 'application/json' }); response.end('{"ok":true}'); },
      () => { response.writeHead(500); response.end(); },
    );
  });
  server.listen(0, '127.0.0.1', () => { process.send?.((server.address() as AddressInfo).port); });
};

export interface Floor {
  /** p50 of one durable insert behind a bare POST, milliseconds. */
  readonly postMs: number;
  /** Requests a second of a bare GET, 50 connections. */
  readonly getRate: number;
}

/** Measures the floor in this Postgres, with a role that may make a table in `public`. */
export const measureFloor = async (postgresUrl: string): Promise<Floor> => {
  const child = fork(fileURLToPath(import.meta.url), ['serve', postgresUrl]);
  try {
    const port = await new Promise<number>((resolve, reject) => {
      child.once('message', (message) => { resolve(Number(message)); });
      child.once('exit', (code) => { reject(new Error(`the bare server ended with ${String(code)}`)); });
    });
    const api: Api = { url: `http://127.0.0.1:${String(port)}`, token: '' };
    const times: number[] = [];
    for (let n = 0; n < 400; n++) times.push((await call(api, 'POST', '/', { text: 'x' })).ms);
    const get = await new Promise<number>((resolve, reject) => {
      autocannon({ url: api.url, connections: 50, duration: 3 }, (error: unknown, result) => {
        if (error !== null && error !== undefined) reject(error instanceof Error ? error : new Error('the load generator failed'));
        else resolve(result.requests.average);
      });
    });
    return { postMs: percentile(times.slice(100), 0.5), getRate: get };
  } finally {
    child.kill();
  }
};

if (process.argv[2] === 'serve' && process.argv[3] !== undefined) await serve(process.argv[3]);
