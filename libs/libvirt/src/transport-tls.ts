/*
 * TLS as libvirtd speaks it: both sides may have certificates, and when the daemon has looked at ours
 * and taken it, it says so with one byte of 1 before anything else. Ours being refused shows as an end
 * without that byte, since in TLS 1.3 the handshake is over for us before the daemon has looked.
 */
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import type { Socket } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import { Disconnected } from './errors.ts';
import type { Certificates, TlsTransport } from './target.ts';
import { settled } from './transport-opening.ts';
import type { OpenOptions } from './transport-opening.ts';

const accepted = 1;

/** Where the files are, the first place that has them. */
interface Places {
  readonly authority: readonly string[];
  /** Certificate and key belong together. */
  readonly pair: readonly { readonly certificate: string; readonly key: string }[];
  readonly revoked: readonly string[];
}

/** libvirt's own places. `folder`: all of them there. Root does not look at its home. */
export function certificatePlaces(folder: string | undefined, home: string, root: boolean): Places {
  const inFolder = (path: string): Places => ({
    authority: [join(path, 'cacert.pem')],
    pair: [{ certificate: join(path, 'clientcert.pem'), key: join(path, 'clientkey.pem') }],
    revoked: [join(path, 'cacrl.pem')],
  });
  if (folder !== undefined) return inFolder(folder);
  const own = inFolder(join(home, '.pki/libvirt'));
  const machine: Places = {
    authority: ['/etc/pki/CA/cacert.pem'],
    pair: [{ certificate: '/etc/pki/libvirt/clientcert.pem', key: '/etc/pki/libvirt/private/clientkey.pem' }],
    revoked: ['/etc/pki/CA/cacrl.pem'],
  };
  if (root) return machine;
  return { authority: [...own.authority, ...machine.authority], pair: [...own.pair, ...machine.pair], revoked: [...own.revoked, ...machine.revoked] };
}

const absent = (error: unknown): boolean => ['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '');

async function readOptional(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (cause) {
    // Only a file that is not there may be left out: one that cannot be read might be the list of who is not trusted any more.
    if (absent(cause)) return undefined;
    throw new Disconnected('connect', false, { kind: 'socketError', message: `${path} cannot be read`, cause });
  }
}

/** The key is read only where there is a certificate, and must then be there. */
export async function loadCertificates(places: Places): Promise<Certificates> {
  const firstOf = async (paths: readonly string[]) => {
    for (const path of paths) {
      const found = await readOptional(path);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  const authority = await firstOf(places.authority);
  if (authority === undefined) {
    throw new Disconnected('connect', false, { kind: 'socketError', message: `there is no certificate of an authority at ${places.authority.join(' or ')}` });
  }
  const revoked = await firstOf(places.revoked);
  for (const pair of places.pair) {
    const certificate = await readOptional(pair.certificate);
    if (certificate === undefined) continue;
    const key = await readOptional(pair.key);
    if (key === undefined) throw new Disconnected('connect', false, { kind: 'socketError', message: `there is ${pair.certificate} but not its key, ${pair.key}` });
    return { authority, certificate, key, ...(revoked === undefined ? {} : { revoked }) };
  }
  return { authority, ...(revoked === undefined ? {} : { revoked }) };
}

/** Greets on a connected socket until the daemon has accepted us. Throws `Disconnected`. */
export async function connectTls(where: string, raw: Socket, transport: TlsTransport, { signal, timeoutMs }: OpenOptions): Promise<TLSSocket> {
  try {
    // It may fail while the files are read; then TLS finds it destroyed.
    raw.on('error', () => {});
    const given = transport.certificates;
    const certificates =
      typeof given === 'object' ? given : await loadCertificates(certificatePlaces(given, homedir(), process.getuid?.() === 0));
    const verify = transport.verifyServer !== false;
    return await settled<TLSSocket>(where, signal, timeoutMs, (resolve, reject) => {
      const socket = connect({
        socket: raw,
        host: transport.host,
        // Names only: an address is looked for in the certificate by itself.
        ...(isIP(transport.host) === 0 ? { servername: transport.host } : {}),
        ca: certificates.authority,
        ...(certificates.certificate === undefined ? {} : { cert: certificates.certificate }),
        ...(certificates.key === undefined ? {} : { key: certificates.key }),
        ...(certificates.revoked === undefined ? {} : { crl: certificates.revoked }),
        rejectUnauthorized: verify,
        minVersion: 'TLSv1.2',
      });
      let greeted = false;
      const refused = (cause?: unknown) =>
        reject({
          kind: 'authenticationFailed',
          message: greeted || cause !== undefined ? `${where} does not take our certificate${certificates.certificate === undefined ? ': we have none' : ''}` : `${where} ended the handshake of TLS`,
          cause,
        });
      socket.once('secureConnect', () => (greeted = true));
      socket.once('error', (cause: NodeJS.ErrnoException) => {
        if (greeted || /alert.*(certificate|unknown ca)/i.test(cause.message)) return refused(cause);
        if (cause.code === 'ERR_TLS_CERT_ALTNAME_INVALID' || Boolean(socket.authorizationError)) {
          return reject({ kind: 'authenticationFailed', message: `the certificate of ${where} is not to be trusted: ${cause.message}`, cause });
        }
        reject({ kind: 'socketError', message: `${where} does not speak TLS with us: ${cause.message}`, cause });
      });
      socket.once('close', () => refused());
      socket.once('end', () => refused());
      socket.once('data', (chunk: Buffer) => {
        if (chunk[0] !== accepted) return refused();
        socket.pause();
        if (chunk.length > 1) socket.unshift(chunk.subarray(1));
        resolve(socket);
      });
      return socket;
    });
  } catch (cause) {
    raw.destroy();
    // What is no certificate at all is told by an exception of tls.connect; its message has nothing of the key.
    if (cause instanceof Disconnected) throw cause;
    throw new Disconnected('connect', false, { kind: 'authenticationFailed', message: 'the certificates cannot be used', cause });
  }
}
