/*
 * Credentials from libvirt's own file, `auth.conf`, as virsh finds them:
 *
 *   [credentials-production]
 *   authname=fred
 *   password=secret
 *
 *   [auth-libvirt-node-1.example.com]
 *   credentials=production
 *
 * A group says which credentials are for a host; `auth-libvirt-default` is for all others. A daemon on
 * this machine is `localhost`. The file is the one that $LIBVIRT_AUTH_FILE names, else the one of the
 * URI's parameter `authfile`, else auth.conf of the user, else that of the system.
 */
import { access, constants, readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { SaslError } from './sasl.ts';
import type { Credentials } from './sasl.ts';

export interface AuthConfOptions {
  /** The file to read, wherever else there may be one. */
  readonly file?: string;
  /** Default: this process's own. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

/** What is known when credentials are wanted. `connect` gives more (`CredentialsAsked`). */
export interface AuthConfQuestion {
  /** The daemon's host as the caller named it, `localhost` for a socket. */
  readonly host: string;
  /** The URI's own word. */
  readonly authFile: string | undefined;
}

/**
 * For the option `credentials` of `connect`. The file is read again for each connection. Throws
 * SaslError, which connect() makes a `Disconnected` of, when there is no file, when it has no credentials for the host, or
 * when it is not of this form.
 */
export function fromAuthConf(options: AuthConfOptions = {}): (question: AuthConfQuestion) => Promise<Credentials> {
  return async ({ host, authFile }) => {
    // eslint-disable-next-line no-restricted-syntax -- these variables are libvirt's, and every client of it goes by them
    const file = options.file ?? (await fileToRead(options.environment ?? process.env, authFile));
    if (file === undefined) throw new SaslError(`there is no auth.conf to have the credentials for ${host}`);
    let text: string;
    try {
      text = await readFile(file, 'utf8');
    } catch (cause) {
      // The code alone: EACCES, ENOENT.
      throw new SaslError(`${file} cannot be read: ${(cause as NodeJS.ErrnoException).code ?? String(cause)}`);
    }
    return credentialsFor(text, host, file);
  };
}

async function fileToRead(environment: Readonly<Record<string, string | undefined>>, authFile: string | undefined): Promise<string | undefined> {
  const named = environment['LIBVIRT_AUTH_FILE'] ?? authFile;
  if (named !== undefined) return named;
  const configuration = environment['XDG_CONFIG_HOME'] ?? join(environment['HOME'] ?? homedir(), '.config');
  for (const file of [join(configuration, 'libvirt/auth.conf'), '/etc/libvirt/auth.conf']) {
    if (await access(file, constants.R_OK).then(() => true, () => false)) return file;
  }
  return undefined;
}

/** The credentials that such a text has for the host. `file` is for words. Throws SaslError. */
export function credentialsFor(text: string, host: string, file: string): Credentials {
  const groups = groupsOf(text, file);
  const group = [`auth-libvirt-${host}`, 'auth-libvirt-default'].find((name) => groups.has(name));
  if (group === undefined) throw new SaslError(`${file} has no credentials for ${host}`);
  const name = groups.get(group)?.get('credentials');
  if (name === undefined) throw new SaslError(`${file}: ${group} names no credentials`);
  const fields = groups.get(`credentials-${name}`);
  if (fields === undefined) throw new SaslError(`${file}: there is no group credentials-${name}, which ${group} names`);
  // `username` and `realm` are for other services; virsh does not use them here either.
  const [username, password] = [fields.get('authname'), fields.get('password')];
  if (username === undefined || password === undefined) throw new SaslError(`${file}: credentials-${name} lacks authname or password`);
  return { username, password };
}

type Groups = ReadonlyMap<string, ReadonlyMap<string, string>>;

function groupsOf(text: string, file: string): Groups {
  const groups = new Map<string, Map<string, string>>();
  let group: Map<string, string> | undefined;
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const start = line.trimStart();
    if (start === '' || start.startsWith('#')) continue;
    const heading = /^\[([^\]]*)\]\s*$/.exec(start)?.[1];
    const equals = start.indexOf('=');
    if (heading !== undefined) {
      group = groups.get(heading) ?? new Map<string, string>();
      groups.set(heading, group);
    } else if (equals > 0 && group !== undefined) {
      group.set(start.slice(0, equals).trimEnd(), start.slice(equals + 1).trimStart());
    } else {
      // Not the line itself: it may be a password.
      throw new SaslError(`${file}: line ${index + 1} is neither a group nor a setting in one`);
    }
  }
  return groups;
}
