/* A client of the tus protocol, as simple as can be, which a test can cut off in the middle. */
import { hash, createHash } from 'node:crypto';
import { createReadStream, statSync } from 'node:fs';
import { request } from 'node:http';
import { Refused, type Problem } from './rest.ts';

export interface Uploaded {
  /** How often it had to ask where to go on. */
  readonly resumed: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

export const sha256Of = async (file: string): Promise<string> => {
  const sum = createHash('sha256');
  for await (const chunk of createReadStream(file, { highWaterMark: 1_048_576 })) sum.update(chunk as Buffer);
  return sum.digest('hex');
};
export const sumOf = (bytes: Buffer): string => hash('sha256', bytes, 'hex');

const RESUMES_MAX = 100;

export function tusOf(url: string, token: string) {
  const ask = (method: string, path: string, headers: Readonly<Record<string, string>>, body?: { readonly file: string; readonly start: number; readonly end: number }, signal?: AbortSignal): Promise<{ status: number; headers: Uploaded['headers']; text: string }> =>
    new Promise((resolve, reject) => {
      const asked = request(url + path, { method, signal, headers: { authorization: `Bearer ${token}`, 'tus-resumable': '1.0.0', ...headers, ...(body === undefined ? {} : { 'content-length': String(body.end - body.start) }) } }, (answer) => {
        let text = '';
        answer.on('data', (chunk: Buffer) => { text += chunk.toString(); }).on('end', () => { resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text }); }).on('error', reject);
      });
      asked.on('error', reject);
      if (body === undefined) asked.end();
      else createReadStream(body.file, { start: body.start, end: body.end - 1, highWaterMark: 1_048_576 }).on('error', reject).pipe(asked);
    });
  const sound = (method: string, path: string, answer: Awaited<ReturnType<typeof ask>>): typeof answer => {
    if (answer.status >= 400) throw new Refused(method, path, answer.status, JSON.parse(answer.text === '' ? '{"code":"none"}' : answer.text) as Problem);
    return answer;
  };

  const begin = async (fields: Readonly<Record<string, string | number>>, bytes: number): Promise<string> => {
    const metadata = Object.entries(fields).map(([name, value]) => `${name} ${Buffer.from(String(value)).toString('base64')}`).join(',');
    const answer = sound('POST', '/v1/images/uploads', await ask('POST', '/v1/images/uploads', { 'upload-length': String(bytes), 'upload-metadata': metadata }));
    return String(answer.headers['location']);
  };
  const offset = async (path: string): Promise<number> => Number(sound('HEAD', path, await ask('HEAD', path, {})).headers['upload-offset']);
  const send = async (path: string, file: string, start: number, end: number, signal?: AbortSignal): Promise<Uploaded['headers']> =>
    sound('PATCH', path, await ask('PATCH', path, { 'upload-offset': String(start), 'content-type': 'application/offset+octet-stream' }, { file, start, end }, signal)).headers;

  return {
    begin, offset, send,
    /** All of a file, in pieces, gone on with after whatever breaks. */
    upload: async (file: string, fields: Readonly<Record<string, string | number>>, pieceBytes = 64 * 2 ** 20): Promise<Uploaded> => {
      const bytes = statSync(file).size;
      const path = await begin(fields, bytes);
      let resumed = 0;
      for (let at = 0; ;) {
        try {
          const headers = await send(path, file, at, Math.min(bytes, at + pieceBytes));
          at = Number(headers['upload-offset']);
          if (at === bytes) return { resumed, headers };
        } catch (fault) {
          if (fault instanceof Refused && fault.status < 500 && fault.code !== 'upload.other_offset') throw fault;
          if (++resumed > RESUMES_MAX) throw fault;
          await new Promise((resolve) => setTimeout(resolve, 200));
          at = await offset(path).catch(() => at);
        }
      }
    },
  };
}
