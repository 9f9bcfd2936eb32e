/*
 * A guest of a cloud image, told who it is by nothing but the API: a real Debian with cloud-init, seen by SSH
 * from the node's network and from inside. It starts twice only, because under emulation that takes half a minute or more.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { debianImage } from '../tools/debian-image.ts';
import { libguestfsKernel } from '../tools/guest/libguestfs-kernel.ts';
import { startPlatform, type Platform } from './platform.ts';
import { addQemuNode, GUEST_IMAGES, GUEST_NETWORK, type QemuNode } from './qemu-node.ts';
import { Refused, type Accepted, type Operation, type Rest, type Vm } from './rest.ts';

const run = promisify(execFile);
/** Alone on two cores 75 s were seen. */
const BOOTED_WITHIN_MS = 600_000;

interface Key {
  readonly file: string;
  readonly line: string;
}

interface BootRun {
  readonly id: string;
  readonly vmId: string;
  readonly job: { readonly name: string; readonly revision: number; readonly system: boolean };
  readonly status: string;
  readonly exitCode: number | null;
  readonly output: string | null;
}

/** What no shell may take for anything but text. */
const HOSTILE = '$(touch /tmp/hostile) `touch /tmp/hostile`\'; touch /tmp/hostile; \'"$HOME"\\ \n# {{ds}} 🙂';
const TOKEN = 'Canary-boot-\'$x"4Kq';

interface RegisteredKey {
  readonly id: string;
  readonly publicKey: string;
  readonly fingerprint: string;
  readonly privateKey?: string;
}

describe('a guest of a cloud image', () => {
  const dir = mkdtempSync(join(tmpdir(), 'cv-cloud-'));
  let platform: Platform;
  let rest: Rest;
  let node: QemuNode;
  let vm: Vm;
  let mine: Key;
  let stranger: Key;
  let made: RegisteredKey & { readonly privateKey: string };
  let imported: RegisteredKey;

  const keyOf = async (name: string): Promise<Key> => {
    const file = join(dir, name);
    await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', `${name}@spec`, '-f', file]);
    return { file, line: readFileSync(`${file}.pub`, 'utf8').trim() };
  };
  const wish = (more: object): Record<string, unknown> => ({ name: 'cloud', image: 'debian', network: GUEST_NETWORK, vcpus: 2, memoryMib: 768, diskGib: 3, ...more });
  const refusal = (cloudInit: object): Promise<Refused> => rest.ok('POST', '/v1/vms', wish({ name: 'refused', cloudInit })).then(() => { throw new Error('it was not refused'); }, (error: unknown) => {
    if (error instanceof Refused) return error;
    throw error;
  });
  /** What a command in the guest prints, run by whoever has the key. */
  const ssh = (key: Key, command: string, user = 'debian'): Promise<string> => node.inNetwork(
    'ssh', '-i', key.file, '-o', 'IdentitiesOnly=yes', '-o', 'BatchMode=yes', '-o', 'StrictHostKeyChecking=accept-new', '-o', `UserKnownHostsFile=${join(dir, 'hosts')}`, '-o', 'ConnectTimeout=10',
    `${user}@${vm.address ?? ''}`, command);

  /** What each of some commands prints. */
  const each = async (...commands: readonly string[]): Promise<readonly string[]> => (await ssh(mine, commands.join('; echo "-- >8 --"; '))).split('-- >8 --\n');
  const asked = (method: 'POST' | 'DELETE', what: 'password' | 'ssh-keys', body: object): Promise<Accepted & { readonly password?: string }> => rest.ok(method, `/v1/vms/${vm.id}/${what}`, body);
  const done = async ({ operation }: Accepted): Promise<Operation> => rest.succeeded(operation.id, 60_000);
  /** Changes the machine, and says what waits for its next start. */
  const pendingAfter = async (change: object): Promise<readonly string[]> => {
    await done(await rest.ok<Accepted>('PATCH', `/v1/vms/${vm.id}/hardware`, change));
    return (await rest.ok<Vm & { readonly pending: readonly string[] }>('GET', `/v1/vms/${vm.id}`)).pending;
  };
  const cloudInitEnded = (times: number): Promise<unknown> => rest.until('cloud-init has ended', () => Promise.resolve(node.console(vm).split(/Cloud-init v\. \S+ finished/).length > times), BOOTED_WITHIN_MS, 500);
  const runsOf = (id: string, more = ''): Promise<readonly BootRun[]> => rest.all<BootRun>(`/v1/boot-runs?vm=${id}${more}`);
  const ranAll = (times: number): Promise<readonly BootRun[]> => rest.until('the guest has said how its jobs went', async () => {
    const runs = await runsOf(vm.id, '&system=true');
    return runs.length === times && runs.every(({ status }) => status !== 'pending') ? runs : undefined;
  }, 60_000, 500);
  /** Disks of cloud-init on the node in which some run of a job stands. */
  const seedsWithRuns = (): readonly string[] => readdirSync(node.poolDir).filter((name) => name.endsWith('.seed.iso') && readFileSync(join(node.poolDir, name), 'latin1').includes('take run_'));
  const failed = async ({ operation }: Accepted): Promise<readonly unknown[]> => {
    const { status, error } = await rest.ended(operation.id, 60_000);
    return [status, error?.code];
  };
  /** Whether a password lets a user in, asked of the guest's own login by somebody who is not root. */
  const letsIn = async (user: string, password: string): Promise<boolean> => (await ssh(mine, `printf '%s\\n' '${password.replaceAll("'", String.raw`'\''`)}' | sudo -u nobody su ${user} -c 'id -un' || true`)).trim() === user;
  /** Files in which one of some texts stands: whatever the platform wrote, but for the guest's own disk. */
  const filesWith = async (...texts: readonly string[]): Promise<readonly string[]> => {
    const found = await run('grep', ['-rlaF', '--exclude-dir=metal-pool', '--exclude-dir=run', ...texts.flatMap((text) => ['-e', text]), platform.dir, dirname(node.libvirtSocket)], { maxBuffer: 2 ** 24 }).catch((error: unknown) => {
      if ((error as { code?: unknown }).code === 1) return { stdout: '' };
      throw error;
    });
    return found.stdout.split('\n').filter((line) => line !== '').map((line) => relative(platform.dir, line));
  };

  beforeAll(async () => {
    const image = debianImage(GUEST_IMAGES);
    [platform, mine, stranger] = await Promise.all([startPlatform({ split: false, environment: await libguestfsKernel(GUEST_IMAGES.cache) }), keyOf('mine'), keyOf('stranger')]);
    ({ rest } = platform);
    node = await addQemuNode(platform, 'metal');
    await rest.ok('POST', '/v1/images', { ...(await image) });
    made = await rest.ok('POST', '/v1/keys', { name: 'made' });
    imported = await rest.ok('POST', '/v1/keys', { name: 'imported', publicKey: (await keyOf('imported')).line });
    await rest.ok('POST', '/v1/boot-jobs', {
      name: 'write-words', timeoutSeconds: 60,
      script: '#!/bin/sh\nprintf %s "$WORDS" >/etc/words\nprintf %s "$TOKEN" >/etc/token\necho "$WORDS and $TOKEN"\nls -d / "$MISSING"\n',
      variables: [{ name: 'WORDS', required: true }, { name: 'TOKEN', secret: true }, { name: 'MISSING', default: '/no-such-file' }],
    });
    vm = await rest.running(wish({
      bootJobs: [{ job: 'add-swap', variables: { SIZE_MIB: 16 } }, { job: 'write-words', variables: { WORDS: HOSTILE } }],
      sshKeys: ['made'],
      cloudInit: {
        hostname: 'web-1.example.org', sshKeys: [mine.line],
        userData: '#cloud-config\nwrite_files:\n  - path: /etc/told\n    content: "by user-data: {\\"ä\\": 1}\\n"\nruncmd:\n  - [sh, -c, "echo ran as $(id -un) > /run/ran"]\n',
      },
    }), BOOTED_WITHIN_MS);
    await cloudInitEnded(1);
  }, 900_000);
  afterAll(async () => {
    await platform?.stop();
    await node?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  it('A1-03 has the address that was leased, and lets in whoever has the key, and nobody else', async () => {
    expect(vm.address).toMatch(/^10\.98\.7\./);
    expect(await ssh(mine, 'cat /etc/os-release')).toContain('ID=debian');
    await expect(ssh(stranger, 'true')).rejects.toThrow('Permission denied');
    await expect(ssh(stranger, 'true', 'root')).rejects.toThrow('Permission denied');
    // Keys are the only way in until a password is set.
    expect((await ssh(mine, 'sudo cut -d: -f1,2 /etc/shadow')).split('\n').filter((line) => /:\$/.test(line))).toEqual([]);
  });

  it('A1-21 has the host name that it was given', async () => {
    expect(await ssh(mine, 'hostname; hostname -f; cat /etc/hostname')).toBe('web-1\nweb-1.example.org\nweb-1\n');
    expect(JSON.parse(await node.virsh('qemu-agent-command', '--timeout', '10', await node.domainOf(vm), '{"execute":"guest-get-host-name"}'))).toEqual({ return: { 'host-name': 'web-1' } });
  });

  it('A1-36 A1-37 was told keys, user-data and its network, and is a machine of its own', async () => {
    // One connection: each costs an emulated guest a second.
    const [keys, told, instance, address = '', route, dns, machine, size = ''] = await each(
      'cat ~/.ssh/authorized_keys', 'cat /etc/told /run/ran', 'sudo cat /var/lib/cloud/data/instance-id', 'ip -4 -o addr show eth0', 'ip -4 route show default', 'resolvectl dns eth0', 'cat /etc/machine-id', 'df --output=size -BM /');
    expect(keys).toContain(mine.line);
    expect(told).toBe('by user-data: {"ä": 1}\nran as root\n');
    expect(instance?.trim()).toBe(vm.id);
    // Static, as ipam leased it: no DHCP client took it.
    expect(address).toMatch(new RegExp(` ${vm.address ?? ''}/24 .*scope global (?!dynamic)`));
    expect(route).toMatch(/^default via 10\.98\.7\.1 dev eth0 proto static/);
    expect(dns).toContain('10.98.7.1');
    expect(machine).toMatch(/^[0-9a-f]{32}\n$/);
    // Its root file system fills the disk it was given, not the image's 2 GiB.
    expect(Number(size.replaceAll(/\D/g, ''))).toBeGreaterThan(2_600);
  });

  it('A1-33 has run what it was given at its first boot, its variables to the letter, and what it said is recorded', async () => {
    const runs = await ranAll(2);
    const [swap, words] = ['add-swap', 'write-words'].map((name) => runs.find(({ job }) => job.name === name));
    expect([swap?.status, swap?.exitCode, words?.status, words?.exitCode]).toEqual(['succeeded', 0, 'failed', 2]);
    expect(words?.output).toMatch(/ and \nls: .*no-such-file.*\n\/\n$/);
    const [swaps, written, other] = await each('cat /proc/swaps', 'cat /etc/words', 'ls /tmp/hostile /etc/token 2>&1; sudo find /var/lib/chronovirt/boot-jobs -type f');
    expect(swaps).toMatch(/\/swapfile +file\s+163\d\d/);
    expect(written).toBe(HOSTILE);
    // Nothing of it was run as a command; the script and its variables are gone from the guest.
    expect(other).toMatch(/hostile': No such file[^]*token/);
    expect(other).toMatch(/run_[0-9a-f]{32}\/output$/m);
    expect(other).not.toMatch(/\/(script|environment)$/m);
    const { bootRuns } = await rest.ok<Vm & { readonly bootRuns: readonly unknown[] }>('GET', `/v1/vms/${vm.id}`);
    expect([bootRuns, await rest.all('/v1/vms?bootRuns=pending'), seedsWithRuns()]).toEqual([[], [], []]);
  });

  it('A1-33 jobs are there after the installation, those of the platform hidden; what does not fit is refused, every variable named', async () => {
    const named = async (query: string): Promise<readonly string[]> => (await rest.all<{ name: string }>(`/v1/boot-jobs${query}`)).map(({ name }) => name).sort();
    expect(await named('')).toEqual(['add-swap', 'install-guest-agent', 'install-packages', 'set-timezone', 'write-words']);
    expect(await named('?system=true')).toContain('reset-password');
    const bad = await rest.ok('POST', `/v1/vms/${vm.id}/boot-jobs`, { job: 'write-words', variables: { WORD: 'x', MISSING: 7 } }).then(() => undefined, (error: unknown) => error as Refused);
    expect(bad?.problem.errors?.map(({ path }) => path)).toEqual(['body.variables.WORD', 'body.variables.WORDS', 'body.variables.MISSING']);
    const early = await rest.ok('POST', '/v1/vms', wish({ name: 'refused', cloudInit: {}, bootJobs: [{ job: 'write-words', variables: { WORDS: '', TOKEN } }] })).then(() => undefined, (error: unknown) => error as Refused);
    expect([early?.problem.errors?.[0]?.path, JSON.stringify(early?.problem).includes('Canary')]).toEqual(['body.bootJobs.0.variables.TOKEN', false]);
    await expect(rest.ok('POST', '/v1/vms', wish({ name: 'refused', bootJobs: [{ job: 'add-swap' }] }))).rejects.toMatchObject({ status: 422, code: 'boot_job.no_cloud_init' });
  });

  it('A1-37 what cannot be understood is refused, every field named, and makes nothing', async () => {
    const broken = await refusal({ userData: '#cloud-config\nruncmd: [', networkConfig: 'version: 9\n' });
    expect([broken.status, broken.code, broken.problem.errors?.map(({ path }) => path)]).toEqual([400, 'request.malformed', ['body.cloudInit.userData', 'body.cloudInit.networkConfig']]);
    const large = await refusal({ hostname: 'no_host', sshKeys: ['ssh-rsa AAAA\nssh-rsa BBBB'], userData: `#cloud-config\n# ${'x'.repeat(65_536)}` });
    expect(large.problem.errors?.map(({ path }) => path)).toEqual(['body.cloudInit.hostname', 'body.cloudInit.sshKeys.0', 'body.cloudInit.userData']);
    expect((await rest.all<Vm>('/v1/vms')).map(({ name }) => name)).toEqual(['cloud']);
  });

  it('A1-36 lets in a key that is bound later, and no more once it is unbound', async () => {
    const keys = { user: 'debian', keys: [stranger.line] };
    expect((await done(await asked('POST', 'ssh-keys', keys))).how).toBe('guest-agent');
    expect(await ssh(stranger, 'id -un')).toBe('debian\n');
    await done(await asked('POST', 'ssh-keys', keys));
    expect((await ssh(mine, 'cat ~/.ssh/authorized_keys')).split('\n').filter((line) => line === stranger.line)).toHaveLength(1);
    await done(await asked('DELETE', 'ssh-keys', keys));
    await expect(ssh(stranger, 'true')).rejects.toThrow('Permission denied');
    expect(await ssh(mine, 'id -un')).toBe('debian\n');
  });

  it('A1-36 lets in a pair that was made here, and a key that is bound and unbound by its name; deleted, a key is taken from nobody', async () => {
    const own: Key = { file: join(dir, 'made'), line: made.publicKey };
    writeFileSync(own.file, made.privateKey, { mode: 0o600 });
    expect(await ssh(own, 'id -un')).toBe('debian\n');
    expect((await run('ssh-keygen', ['-l', '-f', join(dir, 'imported.pub')])).stdout).toContain(imported.fingerprint);
    const theirs: Key = { file: join(dir, 'imported'), line: imported.publicKey };
    await expect(ssh(theirs, 'true')).rejects.toThrow('Permission denied');
    await done(await asked('POST', 'ssh-keys', { user: 'debian', keys: ['imported'] }));
    expect(await ssh(theirs, 'id -un')).toBe('debian\n');
    await done(await asked('DELETE', 'ssh-keys', { user: 'debian', keys: [imported.id] }));
    await expect(ssh(theirs, 'true')).rejects.toThrow('Permission denied');

    expect((await rest.all<{ name: string; made: boolean }>('/v1/keys')).map((key) => [key.name, key.made]).sort()).toEqual([['imported', false], ['made', true]]);
    await rest.ok('DELETE', `/v1/keys/${made.id}`);
    await expect(rest.ok('GET', `/v1/keys/${made.id}`)).rejects.toMatchObject({ status: 404, code: 'key.not_found' });
    await expect(rest.ok('POST', '/v1/vms', wish({ name: 'refused', sshKeys: ['made'] }))).rejects.toMatchObject({ status: 422, code: 'key.unknown' });
    expect(await ssh(own, 'id -un')).toBe('debian\n');
    // The private half was in one answer, and nowhere since: neither as it was shown nor in the middle of it.
    expect(await filesWith(...made.privateKey.split('\n').slice(3, 5))).toEqual([]);
  });

  it('A1-35 gets a password by its guest agent, which no file of the platform holds afterwards', async () => {
    const made = await asked('POST', 'password', { user: 'debian' });
    const password = made.password ?? '';
    expect(password).toHaveLength(20);
    expect(await done(made)).toMatchObject({ kind: 'password', how: 'guest-agent' });
    expect(await letsIn('debian', password)).toBe(true);

    const given = 'Canary-7vQ: "2"$x';
    const set = await asked('POST', 'password', { user: 'debian', password: given });
    expect(set.password).toBeUndefined();
    await done(set);
    expect(await letsIn('debian', given)).toBe(true);
    expect(await letsIn('debian', password)).toBe(false);

    // The search finds what was written: the operation is in the log, on the bus and in what the services say.
    const places = await filesWith(set.operation.id);
    for (const place of ['postgres/', 'nats/']) expect(places.some((file) => file.startsWith(place)), `${place} among ${places.join(' ')}`).toBe(true);
    expect(await filesWith(...[password, given].flatMap((secret) => [secret, JSON.stringify(secret).slice(1, -1), Buffer.from(secret).toString('base64'), Buffer.from(secret).toString('hex')]))).toEqual([]);
  });

  it('A1-21 is told another host name while it runs', async () => {
    expect(await pendingAfter({ hostname: 'web-2.example.org' })).toEqual([]);
    expect(await ssh(mine, 'hostname; cat /etc/hostname')).toBe('web-2\nweb-2\n');
    // Renaming the VM is no business of the guest's.
    expect(await pendingAfter({ name: 'renamed' })).toEqual([]);
    expect(await rest.ok('GET', `/v1/vms/${vm.id}`)).toMatchObject({ name: 'renamed', spec: { cloudInit: { hostname: 'web-2.example.org' } } });
  });

  it('A1-35 says why there is no password where there is no such user, or no agent; unless told how, it takes the way that there is', async () => {
    expect(await failed(await asked('POST', 'password', { user: 'nobody-here' }))).toEqual(['compensated', 'guest.refused']);
    await ssh(mine, 'sudo systemctl stop qemu-guest-agent');
    expect(await failed(await asked('POST', 'password', { user: 'debian', method: 'guest-agent' }))).toEqual(['compensated', 'guest.no_agent']);
    const set = await rest.ok<Accepted & { readonly method: string; readonly runId: string }>('POST', `/v1/vms/${vm.id}/password`, { user: 'debian' });
    expect([set.method, (await done(set)).how]).toEqual(['next-boot', 'at the next boot']);
    await done(await rest.ok<Accepted>('DELETE', `/v1/vms/${vm.id}/boot-jobs/${set.runId}`));
  });

  it('A1-21 A1-33 A1-35 A1-37 what it cannot be told now it is told at its next start, as a new instance of the same machine', async () => {
    const before = await ssh(mine, 'cat /etc/machine-id');
    // Its agent does not run: the test before has stopped it.
    expect(await pendingAfter({ hostname: 'web-3' })).toEqual(['hostname']);
    expect(await pendingAfter({ boot: ['disk', 'cdrom'] })).toEqual(['boot', 'hostname']);
    expect(await pendingAfter({ cloudInit: { sshKeys: [stranger.line], userData: '#cloud-config\nruncmd:\n  - [sh, -c, "echo again > /run/again"]\n' } })).toEqual(['boot', 'cloudInit']);
    expect(await ssh(mine, 'hostname')).toBe('web-2\n');
    // One VM, or many at once; a secret is sealed, and it is pending until it ran.
    const words = (await rest.all<{ id: string; name: string }>('/v1/boot-jobs')).find(({ name }) => name === 'write-words');
    const many = await rest.ok<Accepted & { readonly runs: readonly { readonly id: string }[] }>('POST', `/v1/boot-jobs/${words?.id ?? ''}/runs`, { vms: [vm.id], variables: { WORDS: 'second', TOKEN, MISSING: '/' } });
    await rest.succeeded(many.operation.id, 60_000);
    const taken = await rest.ok<Accepted & { readonly runId: string }>('POST', `/v1/vms/${vm.id}/boot-jobs`, { job: 'add-swap' });
    await done(taken);
    expect((await rest.all<Vm>('/v1/vms?bootRuns=pending')).map(({ id }) => id)).toEqual([vm.id]);
    expect((await runsOf(vm.id, '&status=pending')).map(({ id }) => id).sort()).toEqual([many.runs[0]?.id, taken.runId].sort());
    await done(await rest.ok<Accepted>('DELETE', `/v1/vms/${vm.id}/boot-jobs/${taken.runId}`));
    const { operation } = await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/stop`, { timeoutSeconds: 0, force: true });
    await rest.succeeded(operation.id, 60_000);
    await expect(asked('POST', 'password', { user: 'debian', method: 'guest-agent' })).rejects.toMatchObject({ status: 409, code: 'vm.not_running', problem: { detail: 'The VM is stopped, not running: only the guest agent of a running VM can do it: start it first.' } });

    const later = 'Canary-next-boot: 9"$(x)';
    const set = await rest.ok<Accepted & { readonly method: string }>('POST', `/v1/vms/${vm.id}/password`, { user: 'debian', password: later });
    expect([set.method, (await done(set)).how]).toEqual(['next-boot', 'at the next boot']);
    expect(seedsWithRuns()).toHaveLength(1);
    // Cut off as it was, its file system is not even clean.
    const offline = 'Canary-offline: 7"$(x)\'\\';
    const written = await rest.ok<Accepted & { readonly method: string }>('POST', `/v1/vms/${vm.id}/password`, { user: 'root', password: offline, method: 'offline' });
    expect([written.method, (await rest.succeeded(written.operation.id, 600_000)).how]).toEqual(['offline', 'offline']);

    const started = await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/start`);
    await rest.succeeded(started.operation.id, 60_000);
    await cloudInitEnded(2);
    // A new instance makes new host keys.
    rmSync(join(dir, 'hosts'));
    expect(await ssh(stranger, 'hostname; cat /run/again; sudo cat /var/lib/cloud/data/instance-id; cat /etc/machine-id')).toBe(`web-3\nagain\n${vm.id}-2\n${before}`);
    expect(await rest.ok('GET', `/v1/vms/${vm.id}`)).toMatchObject({ pending: [] });

    const second = (await ranAll(4)).find(({ id }) => id === many.runs[0]?.id);
    // It printed its secret, and nobody is shown it.
    expect(second).toMatchObject({ status: 'succeeded', output: 'second and ***\n/\n/\n', job: { name: 'write-words', revision: 1 } });
    expect((await runsOf(vm.id)).map(({ job }) => job.name)).not.toContain('reset-password');
    expect(await ssh(stranger, 'cat /etc/words; echo; sudo cat /etc/token')).toBe(`second\n${TOKEN}`);
    mine = stranger;
    expect(await letsIn('debian', later)).toBe(true);
    expect(await letsIn('root', offline)).toBe(true);
    expect(await ssh(mine, 'cd /etc && stat -c "%n %a %U:%G" shadow*')).toMatch(/^shadow 640 root:shadow\n(shadow- .*\n)?$/);
    expect(seedsWithRuns()).toEqual([]);
    for (const secret of [TOKEN, later, offline]) expect(await filesWith(secret, JSON.stringify(secret).slice(1, -1), Buffer.from(secret).toString('base64'), Buffer.from(secret).toString('hex'))).toEqual([]);
  }, 900_000);

  it('A3-04 a VM that is made of an image of it is somebody else: machine id, host name, host keys', async () => {
    const [machine = '', hostKey = ''] = (await ssh(stranger, 'cat /etc/machine-id; cut -d" " -f2 /etc/ssh/ssh_host_ed25519_key.pub')).split('\n');
    await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/stop`, { timeoutSeconds: 30, force: true })).operation.id, 90_000);
    await rest.succeeded((await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/publish`, { name: 'golden', osFamily: 'linux' })).operation.id, 600_000);
    const first = vm;
    vm = await rest.running(wish({ name: 'second', image: 'golden', cloudInit: { sshKeys: [mine.line] } }), 600_000);
    // What the first one wrote on its own console is not on this one's.
    await cloudInitEnded(1);
    const [id = '', name, key = '', instance] = (await ssh(mine, 'cat /etc/machine-id; hostname; cut -d" " -f2 /etc/ssh/ssh_host_ed25519_key.pub; sudo cat /var/lib/cloud/data/instance-id')).split('\n');
    expect([id, machine].every((one) => /^[0-9a-f]{32}$/.test(one))).toBe(true);
    expect([id === machine, name, key === hostKey, instance]).toEqual([false, 'second', false, vm.id]);
    await rest.gone(vm.id);
    vm = first;
    const { items } = await rest.ok<{ items: readonly { id: string; name: string; file: string }[] }>('GET', '/v1/images');
    const golden = items.find((image) => image.name === 'golden');
    await rest.ok('DELETE', `/v1/images/${golden?.id ?? ''}`);
    rmSync(join(GUEST_IMAGES.images, golden?.file ?? ''), { force: true });
  }, 600_000);

  it('leaves nothing on the node when it is gone', async () => {
    await rest.gone(vm.id);
    expect(readdirSync(node.poolDir)).toEqual([]);
  });
});
