/*
 * Every way to a daemon, against real ones that the test starts: TCP, TLS with certificates made here,
 * SSH by a stand-in program and by a real sshd, SASL. Each transport passes the same contract.
 */
import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, chown, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { fromAuthConf } from './auth-conf.ts';
import { connect } from './connection.ts';
import type { ConnectionState, ConnectOptions, CredentialsAsked, Libvirt } from './connection.ts';
import { Disconnected, isAccessDenied, LibvirtError, UnsupportedError } from './errors.ts';
import type { RemoteTarget, Target } from './target.ts';
import { startLibvirtd, startSystemLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd } from './testing-libvirtd.os.ts';

const run = promisify(execFile);
const nobody = 65_534;
const root = process.getuid?.() === 0;
/** As who the daemons of the test run: virt-ssh-helper leads root to the machine's own daemon whatever the URI. */
const asDaemon = root ? `setpriv --reuid=${nobody} --regid=${nobody} --clear-groups ` : '';
const toDaemon = async (path: string) => (root ? chown(path, nobody, nobody) : undefined);
const inFlightMax = 64;

let folder: string;
let pki: string;
let daemon: OwnLibvirtd;
let guarded: OwnLibvirtd;
let ports: { readonly tcp: number; readonly tls: number; readonly guardedTcp: number; readonly guardedTls: number; readonly ssh: number };
const opened: Libvirt[] = [];

async function reach(target: string | Target | RemoteTarget, options?: ConnectOptions): Promise<Libvirt> {
  const libvirt = await connect(target, options);
  opened.push(libvirt);
  return libvirt;
}

/** The error, or a failed test. */
const failureOf = (target: string | Target | RemoteTarget, options?: ConnectOptions): Promise<unknown> =>
  reach(target, options).then(
    () => expect.fail('it connected'),
    (error: unknown) => error,
  );

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, () => new Promise<Server>((resolve) => { const server: Server = createServer().listen(0, '127.0.0.1', () => resolve(server)); })),
  );
  const found = servers.map((server) => (server.address() as { readonly port: number }).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return found;
}

async function until(condition: () => boolean | Promise<boolean>, what: string, msMax = 15_000): Promise<void> {
  const deadline = Date.now() + msMax;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`${what}: not so within ${msMax} ms`);
    await delay(20);
  }
}

/** Two authorities; the first one's server, client and a client that is not on the list; the second one's client. */
async function makeCertificates(): Promise<void> {
  await mkdir(pki);
  const file = (name: string) => join(pki, name);
  const authority = async (name: string) => {
    await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', `/CN=${name}`, '-keyout', file(`${name}-key.pem`), '-out', file(`${name}.pem`)]);
  };
  const signed = async (by: string, name: string, extensions: string) => {
    await run('openssl', ['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', `/O=chronovirt/CN=${name}`, '-keyout', file(`${name}-key.pem`), '-out', file(`${name}.csr`)]);
    await writeFile(file(`${name}.ext`), extensions);
    await run('openssl', ['x509', '-req', '-in', file(`${name}.csr`), '-CA', file(`${by}.pem`), '-CAkey', file(`${by}-key.pem`), '-CAcreateserial', '-days', '2', '-extfile', file(`${name}.ext`), '-out', file(`${name}.pem`)]);
  };
  await Promise.all([authority('ours'), authority('theirs')]);
  await signed('ours', 'server', 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n');
  await signed('ours', 'client', 'extendedKeyUsage=clientAuth\n');
  await signed('ours', 'unlisted', 'extendedKeyUsage=clientAuth\n');
  await signed('theirs', 'stranger', 'extendedKeyUsage=clientAuth\n');
  // What a client has, as libvirt names it.
  const folderOf = async (name: string, authorityName: string, client?: string) => {
    await mkdir(file(name));
    await writeFile(join(file(name), 'cacert.pem'), await readFile(file(`${authorityName}.pem`)));
    if (client === undefined) return;
    await writeFile(join(file(name), 'clientcert.pem'), await readFile(file(`${client}.pem`)));
    await writeFile(join(file(name), 'clientkey.pem'), await readFile(file(`${client}-key.pem`)));
  };
  await folderOf('good', 'ours', 'client');
  await folderOf('not-listed', 'ours', 'unlisted');
  await folderOf('strange', 'ours', 'stranger');
  await folderOf('without', 'ours');
  await folderOf('wrong-authority', 'theirs', 'client');
  // The daemon is nobody.
  await toDaemon(file('server-key.pem'));
}

/** A program that is to ssh what a rehearsal is to a play: it leaves out the journey and runs the words for the other side here. */
async function standIn(name: string, words: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, `#!/bin/sh\n${words}\n`);
  await chmod(path, 0o755);
  return path;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cvtr-'));
  await chmod(folder, 0o755);
  pki = join(folder, 'pki');
  const [tcp, tls, guardedTcp, guardedTls, ssh] = (await freePorts(5)) as [number, number, number, number, number];
  ports = { tcp, tls, guardedTcp, guardedTls, ssh };
  await makeCertificates();
  const files = { ca_file: join(pki, 'ours.pem'), cert_file: join(pki, 'server.pem'), key_file: join(pki, 'server-key.pem') };
  const shared = { listen_addr: '127.0.0.1', listen_tcp: 1, listen_tls: 1, max_client_requests: inFlightMax + 8, tls_allowed_dn_list: ['O=chronovirt,CN=client'], ...files };
  // Passwords, as Cyrus SASL keeps them.
  const sasl = join(folder, 'sasl');
  await mkdir(sasl);
  const passwords = join(sasl, 'sasldb');
  await writeFile(join(sasl, 'libvirt.conf'), `mech_list: scram-sha-256 plain\npwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: ${passwords}\n`);
  const added = run('saslpasswd2', ['-p', '-c', '-a', 'libvirt', '-f', passwords, 'fred']);
  added.child.stdin?.end('s3cret=,word');
  await added;
  await Promise.all([sasl, passwords].map(toDaemon));
  [daemon, guarded] = await Promise.all([
    startLibvirtd({ ...shared, tcp_port: String(tcp), tls_port: String(tls), auth_tcp: 'none', auth_tls: 'none' }, { listening: true }),
    startLibvirtd(
      { ...shared, tcp_port: String(guardedTcp), tls_port: String(guardedTls), auth_tcp: 'sasl', auth_tls: 'sasl', auth_unix_rw: 'sasl' },
      { listening: true, environment: { SASL_CONF_PATH: sasl } },
    ),
  ]);
}, 120_000);

afterEach(async () => {
  await Promise.all(opened.splice(0).map((libvirt) => libvirt.close()));
});

afterAll(async () => {
  await Promise.all([daemon?.stop(), guarded?.stop()]);
  await rm(folder, { recursive: true, force: true });
});

const sshWords = () => `while [ "$1" != -- ]; do shift; done; shift 2; exec env HOME=${daemon.directory} XDG_RUNTIME_DIR=${join(daemon.directory, 'run')} ${asDaemon}sh -c "$*"`;
const certificatesOf = (name: string) => `pkipath=${encodeURIComponent(join(pki, name))}`;

/** What each transport must carry: many calls at once, an event, a stream, and all of it again after a loss. */
async function carriesEverything(target: string | Target | RemoteTarget, options: ConnectOptions = {}): Promise<void> {
  const libvirt = await reach(target, { ...options, inFlightMax, reconnect: { delayMsMin: 20, delayMsMax: 200 } });
  const domain = await libvirt.domainLookupByName({ name: 'test' });
  const infos = await Promise.all(Array.from({ length: 500 }, () => libvirt.domainGetInfo({ domain })));
  expect(infos.length).toBe(500);
  // An answer of many kilobytes, and one whose question is.
  const xml = `<domain type='test'><name>large</name><description>${'x'.repeat(200_000)}</description><memory unit='MiB'>8</memory><os><type>hvm</type></os></domain>`;
  const large = await libvirt.domainDefineXmlFlags({ xml });
  expect((await libvirt.domainGetXmlDesc({ domain: large })).length).toBeGreaterThan(200_000);

  const screenshot = await libvirt.domainScreenshot({ domain });
  const picture = Buffer.concat((await screenshot.toArray()) as Buffer[]);
  expect(picture.subarray(1, 4).toString()).toBe('PNG');

  const events = await libvirt.domainEvents({ kinds: ['lifecycle'] });
  const next = async () => (await events[Symbol.asyncIterator]().next()).value as { readonly kind: string; readonly event?: string };
  await libvirt.domainSuspend({ domain });
  expect(await next()).toMatchObject({ kind: 'lifecycle', event: 'suspended' });

  await daemon.kill();
  await expect(libvirt.connectGetHostname()).rejects.toBeInstanceOf(Disconnected);
  await daemon.start();
  await libvirt.whenConnected();
  expect(await next()).toMatchObject({ kind: 'gap' });
  await libvirt.domainSuspend({ domain: await libvirt.domainLookupByName({ name: 'test' }) });
  expect(await next()).toMatchObject({ kind: 'lifecycle', event: 'suspended' });
  await libvirt.close();
  expect(libvirt.state).toMatchObject({ status: 'closed', reason: { kind: 'closedByCaller' } });
}

describe('every transport carries calls, events and streams, and is made again', () => {
  it('unix', () => carriesEverything(`test+unix:///default?socket=${daemon.socket}`));
  it('TCP', () => carriesEverything(`test+tcp://127.0.0.1:${ports.tcp}/default`));
  // Without keepalive, whose packets would wake a daemon that waits for its socket with a packet in hand.
  it('TLS', () => carriesEverything(`test://127.0.0.1:${ports.tls}/default?${certificatesOf('good')}`, { keepalive: false }));
  it('a program', async () => carriesEverything(`test+ext:///default?command=${await standIn('tunnel', `exec nc -q 0 -U ${daemon.socket}`)}`));
  it('SSH with netcat', async () => carriesEverything(`test+ssh://somewhere/default?command=${await standIn('ssh', sshWords())}&socket=${daemon.socket}`));
});

describe('TLS', () => {
  const uri = (name: string, more = '') => `test+tls://127.0.0.1:${ports.tls}/default?${certificatesOf(name)}${more}`;

  it('is known to the daemon as secure', async () => expect(await (await reach(uri('good'))).connectIsSecure()).toBe(true));

  it('takes certificates as texts', async () => {
    const [authority, certificate, key] = await Promise.all(['ours.pem', 'client.pem', 'client-key.pem'].map((name) => readFile(join(pki, name))));
    const libvirt = await reach({ driver: 'test:///default', transport: { kind: 'tls', host: '127.0.0.1', port: ports.tls, certificates: { authority: authority as Buffer, certificate: certificate as Buffer, key: key as Buffer } } });
    expect(await libvirt.connectGetType()).toBe('TEST');
  });

  it.each([
    ['is not on the daemon’s list', 'not-listed'],
    ['is of another authority', 'strange'],
    ['is missing', 'without'],
  ])('whose client’s certificate %s is refused', async (_what, name) => {
    expect(await failureOf(uri(name))).toMatchObject({ name: 'Disconnected', sent: false, reason: { kind: 'authenticationFailed', message: expect.stringMatching(/does not take our certificate/) as string } });
  });

  it('to a server of another authority is refused here', async () => {
    expect(await failureOf(uri('wrong-authority'))).toMatchObject({ reason: { kind: 'authenticationFailed', message: expect.stringMatching(/is not to be trusted/) as string } });
  });

  it('to a server of another name is refused here, unless it shall not be verified', async () => {
    const named = (more: string) => `test+tls://localhost:${ports.tls}/default?${certificatesOf('good')}${more}`;
    expect(await failureOf(named(''))).toMatchObject({ reason: { kind: 'authenticationFailed', message: expect.stringMatching(/is not to be trusted/) as string } });
    expect(await (await reach(named('&no_verify=1'))).connectGetType()).toBe('TEST');
  });

  it('without an authority does not begin', async () => {
    expect(await failureOf(`test+tls://127.0.0.1:${ports.tls}/default?pkipath=${folder}`)).toMatchObject({ sent: false, reason: { message: expect.stringMatching(/no certificate of an authority/) as string } });
  });

  it('to what does not speak it fails in time', async () => {
    const sockets: Socket[] = [];
    const server = createServer((socket) => sockets.push(socket));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { readonly port: number };
    const silent = await failureOf(`test+tls://127.0.0.1:${port}/default?${certificatesOf('good')}`, { connectTimeoutMs: 200 });
    expect(silent).toMatchObject({ name: 'Disconnected', sent: false, reason: { kind: 'socketError', message: expect.stringMatching(/within 200 ms/) as string } });
    server.removeAllListeners('connection').on('connection', (socket) => { sockets.push(socket); socket.end('hello\n'); });
    expect(await failureOf(`test+tls://127.0.0.1:${port}/default?${certificatesOf('good')}`)).toMatchObject({ name: 'Disconnected', sent: false });
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
});

describe('TCP', () => {
  it('to a port where nobody listens says so', async () => {
    const [port] = await freePorts(1);
    expect(await failureOf(`test+tcp://127.0.0.1:${port}/default`)).toMatchObject({ name: 'Disconnected', sent: false, reason: { kind: 'socketError', message: expect.stringMatching(/cannot be reached/) as string }, cause: { code: 'ECONNREFUSED' } });
  });

  it('is given up when the signal says so', async () => {
    expect(await failureOf(`test+tcp://127.0.0.1:${ports.tcp}/default`, { signal: AbortSignal.abort(new Error('never mind')) })).toMatchObject({ message: 'never mind' });
  });
});

describe('SSH', () => {
  it('finds the daemon by virt-ssh-helper', async () => {
    const libvirt = await reach(`qemu+ssh://somewhere/session?command=${await standIn('ssh-helper', sshWords())}&proxy=native`);
    expect(await libvirt.connectGetUri()).toBe('qemu:///session');
  });

  it('finds the daemon by netcat where there is no helper', async () => {
    // A machine that has not got it: a PATH of these few programs.
    const bin = join(folder, 'bin');
    await mkdir(bin);
    for (const program of ['nc', 'sh', 'id', 'env', 'setpriv']) await run('ln', ['-s', (await run('which', [program])).stdout.trim(), join(bin, program)]);
    const libvirt = await reach(`qemu+ssh://somewhere/session?command=${await standIn('ssh-old', `PATH=${bin}; ${sshWords()}`)}`);
    expect(await libvirt.connectGetUri()).toBe('qemu:///session');
  });

  it('says what ssh said when there is no way', async () => {
    const program = await standIn('ssh-broken', 'echo "ssh: no route to the moon" >&2; exit 255');
    expect(await failureOf(`qemu+ssh://moon/system?command=${program}`)).toMatchObject({ name: 'Disconnected', reason: { kind: 'socketError', message: expect.stringMatching(/status 255: ssh: no route to the moon/) as string } });
    expect(await failureOf('qemu+ssh://moon/system?command=/no/such/program')).toMatchObject({ name: 'Disconnected', sent: false, reason: { message: expect.stringMatching(/cannot be run/) as string } });
  });

  it('leaves no program behind, also one that does not listen', async () => {
    const pidFile = join(folder, 'pid');
    const program = await standIn('ssh-deaf', `echo $$ > ${pidFile}; exec sleep 600`);
    expect(await failureOf(`qemu+ssh://moon/system?command=${program}`, { connectTimeoutMs: 300 })).toMatchObject({ name: 'Disconnected' });
    const pid = Number(await readFile(pidFile, 'utf8'));
    const status = () => readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
    await until(async () => !/\) [RSD] /.test(await status()), 'the program has ended');
  });

  it('never gives words to a shell that mean something there', async () => {
    const canary = join(folder, 'canary');
    const program = await standIn('ssh-careful', sshWords());
    for (const word of [`$(touch ${canary})`, `\`touch ${canary}\``, `;touch ${canary};`, `"; touch ${canary}; "`, `&& touch ${canary}`]) {
      expect(await failureOf({ driver: 'test:///default', transport: { kind: 'ssh', host: 'somewhere', program, socket: word } })).toBeInstanceOf(Error);
      expect(await failureOf({ driver: 'test:///default', transport: { kind: 'ssh', host: 'somewhere', program, socket: daemon.socket, netcat: word } })).toBeInstanceOf(Error);
    }
    for (const word of ["'; touch x; '", 'a\nb', 'a\\b', 'a!b']) {
      expect(await failureOf({ driver: 'test:///default', transport: { kind: 'ssh', host: 'somewhere', program, socket: word } })).toBeInstanceOf(TypeError);
    }
    expect(await failureOf({ driver: 'test:///default', transport: { kind: 'ssh', host: '-oProxyCommand=touch', program } })).toBeInstanceOf(TypeError);
    expect(await readFile(canary).catch(() => 'untouched')).toBe('untouched');
  });
});

describe('a real sshd', () => {
  let sshd: ChildProcess;
  let log = '';

  beforeAll(async () => {
    const file = (name: string) => join(folder, name);
    await Promise.all(['host', 'user'].map((name) => run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', file(`${name}-key`)])));
    await writeFile(file('known_hosts'), `[127.0.0.1]:${ports.ssh} ${await readFile(file('host-key.pub'), 'utf8')}`);
    await writeFile(
      file('sshd_config'),
      [
        'ListenAddress 127.0.0.1', `Port ${ports.ssh}`, `HostKey ${file('host-key')}`, `AuthorizedKeysFile ${file('user-key.pub')}`, 'PidFile none', 'StrictModes no', 'UsePAM no',
        'PermitRootLogin yes', 'PasswordAuthentication no', `SetEnv XDG_RUNTIME_DIR=${join(daemon.directory, 'run')} HOME=${daemon.directory}`,
        `ForceCommand exec ${asDaemon}sh -c "$SSH_ORIGINAL_COMMAND"`, '',
      ].join('\n'),
    );
    // Where sshd locks its children in; the system's start script makes it.
    if (root) await mkdir('/run/sshd', { recursive: true, mode: 0o755 });
    sshd = spawn('/usr/sbin/sshd', ['-D', '-e', '-f', file('sshd_config')], { stdio: ['ignore', 'ignore', 'pipe'] });
    sshd.stderr?.setEncoding('utf8').on('data', (text: string) => (log += text));
    sshd.once('error', (error) => (log += `${String(error)}: install openssh-server`));
    await until(() => log.includes('Server listening') || sshd.exitCode !== null || sshd.pid === undefined, 'sshd listens');
    expect(log).toMatch(/Server listening/);
  });

  afterAll(async () => {
    if (sshd?.pid === undefined || sshd.exitCode !== null) return;
    const ended = new Promise((resolve) => sshd.once('exit', resolve));
    sshd.kill('SIGTERM');
    await ended;
  });

  const uri = (scheme: string, path: string, more = '') =>
    `${scheme}+ssh://${userInfo().username}@127.0.0.1:${ports.ssh}${path}?no_tty=1&keyfile=${join(folder, 'user-key')}&known_hosts=${join(folder, 'known_hosts')}${more}`;

  it('leads to virt-ssh-helper', async () => {
    const libvirt = await reach(uri('qemu', '/session'));
    expect(await libvirt.connectGetUri()).toBe('qemu:///session');
  });

  it('leads to netcat, and carries everything', () => carriesEverything(uri('test', '/default', `&socket=${daemon.socket}`)));

  it('whose key is not known is refused', async () => {
    expect(await failureOf(uri('qemu', '/session').replace(/known_hosts=[^&]*/, 'known_hosts=/dev/null'))).toMatchObject({
      reason: { kind: 'socketError', message: expect.stringMatching(/Host key verification failed/) as string },
    });
  });
});

describe('SASL', () => {
  const credentials = { username: 'fred', password: 's3cret=,word' };
  const unix = () => ({ driver: 'test:///default', socket: guarded.socket });
  const tls = () => `test+tls://127.0.0.1:${ports.guardedTls}/default?${certificatesOf('good')}`;

  it.each(['SCRAM-SHA-256', 'PLAIN'] as const)('%s opens a unix socket and TLS', async (mechanism) => {
    for (const target of [unix(), tls()]) {
      const libvirt = await reach(target, { credentials, saslMechanisms: [mechanism] });
      expect(await libvirt.connectGetType()).toBe('TEST');
    }
  });

  it('takes the strongest, and asks for the credentials each time', async () => {
    const asked: CredentialsAsked[] = [];
    const libvirt = await reach(unix(), { reconnect: { delayMsMin: 20 }, credentials: (what) => (asked.push(what), Promise.resolve(credentials)) });
    expect(asked).toEqual([{ mechanism: 'SCRAM-SHA-256', driver: 'test:///default', where: `libvirtd at ${guarded.socket}`, host: 'localhost', authFile: undefined }]);
    await guarded.kill();
    await guarded.start();
    await libvirt.whenConnected();
    await until(() => asked.length === 2, 'asked again');
    expect(await libvirt.connectGetType()).toBe('TEST');
  });

  it.each(['SCRAM-SHA-256', 'PLAIN'] as const)('%s with a wrong password is refused, and nobody says it', async (mechanism) => {
    const error = await failureOf(unix(), { credentials: { username: 'fred', password: 'wr0ng-word' }, saslMechanisms: [mechanism] });
    expect(isAccessDenied(error)).toBe(true);
    const { inspect } = await import('node:util');
    expect(inspect(error, { depth: 20, showHidden: true })).not.toMatch(/wr0ng-word/);
  });

  it('without credentials is said to be missing', async () => {
    expect(await failureOf(unix())).toBeInstanceOf(UnsupportedError);
    expect(await failureOf(unix())).toMatchObject({ reason: 'libvirtd wants SASL, and there are no credentials' });
  });

  it('does not say a password where others can read it', async () => {
    const uri = `${tls()}&no_verify=1`;
    const error = await failureOf(uri, { credentials, saslMechanisms: ['PLAIN'] });
    expect(error).toMatchObject({ name: 'Disconnected', reason: { kind: 'authenticationFailed', message: expect.stringMatching(/only PLAIN/) as string } });
    expect(await (await reach(uri, { credentials, saslMechanisms: ['PLAIN'], plainAllowed: true })).connectGetType()).toBe('TEST');
    expect(await (await reach(uri, { credentials })).connectGetType()).toBe('TEST');
  });

  it('over TCP is refused by libvirtd itself, which there wants a mechanism that encrypts', async () => {
    const error = await failureOf(`test+tcp://127.0.0.1:${ports.guardedTcp}/default`, { credentials, plainAllowed: true });
    expect(error).toMatchObject({ message: expect.not.stringMatching(/s3cret/) as string });
    expect(isAccessDenied(error)).toBe(true);
  });

  describe('with auth.conf', () => {
    const known = '[credentials-a]\nauthname=fred\npassword=s3cret=,word\n';
    const here = '[auth-libvirt-localhost]\ncredentials=a\n';
    const ofFile = async (text: string): Promise<string> => {
      const path = join(folder, `auth-${randomBytes(4).toString('hex')}.conf`);
      await writeFile(path, text);
      return path;
    };
    const uri = (more = '') => `test+unix:///default?socket=${guarded.socket}${more}`;
    const virshOpens = (file: string): Promise<boolean> =>
      new Promise((resolve) => {
        const child = execFile('virsh', ['-q', '-c', uri(), 'list', '--name'], { env: { PATH: '/usr/bin:/bin', HOME: folder, LC_ALL: 'C', LIBVIRT_AUTH_FILE: file } }, (error) => resolve(error === null));
        child.stdin?.end();
      });

    it.each([
      ['of this host', known + here, true],
      ['of all hosts', `${known}[auth-libvirt-default]\ncredentials=a\n`, true],
      ['of another host', `${known}[auth-libvirt-elsewhere]\ncredentials=a\n`, false],
      ['with comments, spaces and other ends of lines', `# c\r\n${known.replaceAll('\n', '\r\n')}\r\n  [auth-libvirt-localhost] \r\n  credentials = a`, true],
      ['with a comment that is none', `; c\n${known}${here}`, false],
      ['with a line that is nothing', `${known}${here}nothing\n`, false],
      ['with more than we need', known.replace('authname', 'username=other\nrealm=r\nauthname') + here, true],
      ['without a name', known.replace('authname', 'username') + here, false],
      ['that are not there', here, false],
      ['that are not named', `${known}[auth-libvirt-localhost]\nx=a\n[auth-libvirt-default]\ncredentials=a\n`, false],
      ['of which the last counts', known.replace('password=', 'password=wr0ng-word\npassword=') + here, true],
      ['in two groups of one name', `${known}${here}[credentials-a]\npassword=wr0ng-word\n`, false],
      ['that are wrong', known.replace('s3cret', 'wr0ng-word') + here, false],
    ])('credentials %s open the door, or not, as they do for virsh', async (_what, text, opens) => {
      const file = await ofFile(text);
      expect(await virshOpens(file)).toBe(opens);
      const attempt = reach(uri(), { credentials: fromAuthConf({ environment: { LIBVIRT_AUTH_FILE: file } }) });
      if (opens) return expect(await (await attempt).connectGetType()).toBe('TEST');
      const error: unknown = await attempt.catch((caught: unknown) => caught);
      expect(error instanceof Disconnected ? error.reason.kind : isAccessDenied(error)).toEqual(error instanceof Disconnected ? 'authenticationFailed' : true);
      expect(String(error)).not.toMatch(/s3cret|wr0ng-word/);
    });

    it('is looked up where virsh looks', async () => {
      const home = join(folder, 'home');
      await mkdir(join(home, '.config/libvirt'), { recursive: true });
      await mkdir(join(home, 'xdg/libvirt'), { recursive: true });
      const right = await ofFile(known + here);
      const wrong = await ofFile(known.replace('s3cret', 'wr0ng-word') + here);
      const opens = (environment: Readonly<Record<string, string>>, more = '') =>
        reach(uri(more), { credentials: fromAuthConf({ environment: { HOME: home, ...environment } }) }).then(() => true, () => false);
      await writeFile(join(home, '.config/libvirt/auth.conf'), known + here);
      expect(await opens({})).toBe(true);
      await writeFile(join(home, 'xdg/libvirt/auth.conf'), known.replace('s3cret', 'wr0ng-word') + here);
      expect(await opens({ XDG_CONFIG_HOME: join(home, 'xdg') })).toBe(false);
      expect(await opens({ XDG_CONFIG_HOME: join(home, 'xdg') }, `&authfile=${right}`)).toBe(true);
      expect(await opens({ LIBVIRT_AUTH_FILE: wrong }, `&authfile=${right}`)).toBe(false);
      expect(await failureOf(uri(), { credentials: fromAuthConf({ file: join(home, 'nothing') }) })).toMatchObject({ reason: { message: expect.stringMatching(/nothing cannot be read: ENOENT/) as string } });
    });

    it('is used without a word where the URI names it, and TLS has the name of its server', async () => {
      const file = await ofFile(`${known}[auth-libvirt-127.0.0.1]\ncredentials=a\n`);
      expect(await (await reach(`${tls()}&authfile=${file}`)).connectGetType()).toBe('TEST');
      expect(await failureOf(uri(`&authfile=${file}`))).toMatchObject({ reason: { message: `${file} has no credentials for localhost` } });
    });
  });

  it('gives up on credentials that do not come', async () => {
    expect(await failureOf(unix(), { connectTimeoutMs: 300, credentials: () => new Promise<never>(() => {}) })).toMatchObject({ name: 'Disconnected' });
  });
});

describe('a daemon whose driver is another daemon', () => {
  // To a libvirtd a URI with a host is a hypervisor elsewhere: it speaks for us there.
  const through = () => ({ driver: `test+tcp://127.0.0.1:${ports.tcp}/default`, socket: guarded.socket });
  const credentials = { username: 'fred', password: 's3cret=,word' };

  it('says when that is lost', async () => {
    const libvirt = await reach(through(), { credentials });
    expect(await libvirt.connectGetUri()).toBe(through().driver);
    await daemon.kill();
    expect(await libvirt.closed).toMatchObject({ kind: 'hypervisorGone', message: 'libvirtd lost its connection to the hypervisor: it failed' });
    await expect(libvirt.connectGetType()).rejects.toMatchObject({ reason: { kind: 'hypervisorGone' } });
    await daemon.start();
  });

  it('is connected to again when that is there again', async () => {
    const states: ConnectionState[] = [];
    const libvirt = await reach(through(), { credentials, reconnect: { delayMsMin: 20, delayMsMax: 200 }, onState: (state) => states.push(state) });
    const events = await libvirt.domainEvents({ kinds: ['lifecycle'] });
    await daemon.kill();
    expect(await connect(through(), { credentials }).catch((error: unknown) => error)).toBeInstanceOf(LibvirtError);
    await daemon.start();
    await until(() => states.some((state) => state.status === 'disconnected'), 'the loss');
    await libvirt.whenConnected();
    expect((await events.next()).value).toMatchObject({ kind: 'gap', because: 'reconnected' });
    expect(await libvirt.connectGetType()).toBe('TEST');
    expect(states.find((state) => state.status === 'disconnected')).toMatchObject({ reason: { kind: 'hypervisorGone' } });
  });
});

describe('polkit, of a system libvirtd', () => {
  it('lets in whom its rules let in', async () => {
    const system = await startSystemLibvirtd({ auth_unix_rw: 'polkit', unix_sock_rw_perms: '0777' }, { polkitUser: 'nobody' });
    const driver = 'test:///default';
    // Polkit must see who connects, so that one is in its namespaces.
    const as = async (user: number): Promise<RemoteTarget> => ({
      driver,
      transport: {
        kind: 'program',
        program: 'nsenter',
        args: [`--target=${await system.firstPid()}`, '--pid', '--mount', '--', 'setpriv', `--reuid=${user}`, `--regid=${user}`, '--clear-groups', 'nc', '-q', '0', '-U', system.socket],
      },
    });
    try {
      // Unasked.
      expect(await (await reach({ socket: system.socket, driver })).connectGetType()).toBe('TEST');
      expect(await (await reach(await as(nobody))).connectGetType()).toBe('TEST');
      const refused = await failureOf(await as(1));
      expect(isAccessDenied(refused)).toBe(true);
      expect(refused).toMatchObject({ call: 'authPolkit' });
    } finally {
      await system.stop();
    }
  });
});

describe('a volume goes up and down (driver QEMU)', () => {
  it.each([
    ['TLS', () => Promise.resolve(`qemu+tls://127.0.0.1:${ports.tls}/session?${certificatesOf('good')}`)],
    ['TCP', () => Promise.resolve(`qemu+tcp://127.0.0.1:${ports.tcp}/session`)],
    ['a program', async () => `qemu+ext:///session?command=${await standIn('tunnel', `exec nc -q 0 -U ${daemon.socket}`)}`],
  ])('over %s, also for a slow reader', async (name, uri) => {
    const path = join(daemon.directory, `pool-${name.replace(' ', '-')}`);
    await mkdir(path);
    await toDaemon(path);
    const control = await reach(await uri());
    const pool = await control.storagePoolDefineXml({ xml: `<pool type='dir'><name>${name}</name><target><path>${path}</path></target></pool>` });
    await control.storagePoolCreate({ pool });
    const data = randomBytes(24 * 1_048_576);
    const volume = await control.storageVolCreateXml({ pool, xml: `<volume><name>v</name><capacity unit='bytes'>${data.length}</capacity><target><format type='raw'/></target></volume>` });
    const libvirt = await reach(await uri(), { keepalive: false });
    // Calls and data at once.
    const calls = Array.from({ length: 50 }, () => libvirt.connectGetHostname());
    const upload = await libvirt.storageVolUpload({ volume });
    const uploaded = new Promise((resolve, reject) => upload.once('finish', resolve).once('error', reject));
    upload.end(data);
    await Promise.all([uploaded, ...calls]);
    const pieces: Buffer[] = [];
    const download = await libvirt.storageVolDownload({ volume });
    for await (const piece of download) {
      pieces.push(piece as Buffer);
      if (pieces.length % 32 === 0) {
        await delay(1);
        expect(download.readableLength).toBeLessThan(1_048_576);
      }
    }
    expect(Buffer.concat(pieces).equals(data)).toBe(true);
    expect(await libvirt.connectGetType()).toBe('QEMU');
  });
});
