/* Consoles of a node by libvirt's protocol, over a real bus. The daemon is the fake one; real guests are in e2e/console.spec.ts. */
import { buffer } from 'node:stream/consumers';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NodeId, VmId } from '@chronovirt/contracts/ids';
import { uuidOf } from '@chronovirt/contracts/ids';
import { connect } from '@chronovirt/libvirt/connection';
import { targetOf } from '@chronovirt/libvirt/fake/daemon';
import type { Line } from '@chronovirt/messaging/line';
import { openLine } from '@chronovirt/messaging/lines';
import type { Lines } from '@chronovirt/messaging/lines';
import { busOfAgent, busOfService, startTestingServer, until } from '@chronovirt/messaging/testing-server.os';
import type { TestingServer } from '@chronovirt/messaging/testing-server.os';
import type { Bus } from '@chronovirt/messaging/connect';
import { silentLog } from '@chronovirt/observability/log';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectLibvirt, type LibvirtHypervisor } from '../libvirt/libvirt-hypervisor.os.ts';
import { libvirtConsoles } from '../libvirt/libvirt-consoles.os.ts';
import { createFakeMachine } from '../simulated/fake-machine.os.ts';
import type { FakeMachine } from '../simulated/fake-machine.os.ts';
import { answerConsoles } from './answer-consoles.os.ts';
import { isPng } from './png.os.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const nodeId: NodeId = `node_${hex(1)}`;
const vmId: VmId = `vm_${hex(2)}`;
const off: VmId = `vm_${hex(3)}`;
const nobody: VmId = `vm_${hex(4)}`;

let server: TestingServer;
let service: Bus;
let agent: Bus;
let machine: FakeMachine;
let dir: string;
let screen: Server;
let lines: Lines;
let hypervisor: LibvirtHypervisor;
const viewers: Socket[] = [];

const xmlOf = (id: VmId): string => `<domain type='kvm'><name>${id}</name><uuid>${uuidOf(id)}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64'>hvm</type></os>
  <devices><serial type='pty'><target port='0'/></serial><console type='pty'/><graphics type='vnc' autoport='no'/><video><model type='vga'/></video></devices></domain>`;

beforeAll(async () => {
  server = await startTestingServer();
  service = await busOfService(server);
  agent = await busOfAgent(server, nodeId);
  dir = await mkdtemp(join(tmpdir(), 'cv-con-'));
  machine = createFakeMachine({ name: 'n', poolId: `pool_${hex(9)}`, cpus: 4, memoryMib: 4_096, poolGib: 10, latencyMs: 0 });
  const libvirt = await connect(targetOf(machine.daemon));
  await libvirt.domainDefineXmlFlags({ xml: xmlOf(off) });
  await libvirt.domainCreateWithFlags({ domain: await libvirt.domainDefineXmlFlags({ xml: xmlOf(vmId) }) });
  await libvirt.close();
  screen = createServer((socket) => {
    viewers.push(socket);
    socket.on('error', () => undefined).write('RFB 003.008\n');
  }).listen(join(dir, vmId));
  await once(screen, 'listening');
  const host = { ...machine.host, driver: 'qemu' as const, screenSocketOf: (id: VmId) => join(dir, id), consoleLogOf: (id: VmId) => join(dir, `${id}.log`) };
  hypervisor = await connectLibvirt({ nodeId, host: machine.host, agentVersion: '0', log: silentLog });
  lines = answerConsoles({ nodeId, bus: agent, consoles: libvirtConsoles(host), inspector: hypervisor, log: silentLog });
  await agent.nc.flush();
});
afterAll(async () => {
  lines.close('node.stopping');
  await Promise.all([service.close(), agent.close()]);
  screen.close();
  await hypervisor.close();
  await machine.daemon.close();
  await server.stop();
  await rm(dir, { recursive: true });
});

const open = (kind: string, of: VmId = vmId): Promise<Line> => openLine({ nc: service.nc, nodeId, what: { vmId: of, kind } });
/** Collects what comes. */
const heard = (line: Line): (() => string) => {
  let text = '';
  line.on('data', (bytes: Buffer) => { text += bytes.toString(); });
  return () => text;
};

describe('a serial console', () => {
  it('begins with the end of what was said, from the beginning of a line, and takes what is typed', async () => {
    await writeFile(join(dir, `${vmId}.log`), `${'old '.repeat(30_000)}\nlast line\n`);
    const line = await open('serial');
    const said = heard(line);
    await until('it greets', () => said().includes('login: '));
    expect(said().startsWith('last line\n')).toBe(true);
    line.write('root\r');
    await until('it answers', () => said().includes('root: nobody here has that name'));
    line.destroy();
    await until('the agent lets go', () => lines.count() === 0);
  });
  it('is one at a time, and free again at once', async () => {
    const first = await open('serial');
    await expect(open('serial')).rejects.toMatchObject({ code: 'console.in_use' });
    const again = open('serial');
    first.destroy();
    const second = await again;
    second.destroy();
    await until('the agent lets go', () => lines.count() === 0);
  });
  it('ends with its guest', async () => {
    const line = await open('serial');
    line.resume();
    const ended = once(line, 'end');
    machine.crash(vmId);
    await ended;
    await until('the agent lets go', () => lines.count() === 0);
    const libvirt = await connect(targetOf(machine.daemon));
    await libvirt.domainCreateWithFlags({ domain: await libvirt.domainLookupByUuid({ uuid: uuidOf(vmId) }) });
    await libvirt.close();
  });
});

describe('a screen', () => {
  it('is the socket of its QEMU, and neither end outlives the other', async () => {
    const one = await open('vnc');
    const said = heard(one);
    await until('it greets', () => said() === 'RFB 003.008\n');
    const viewer = viewers.at(-1) as Socket;
    const got = once(viewer, 'data');
    one.write('RFB 003.008\n');
    expect(String((await got)[0])).toBe('RFB 003.008\n');
    const gone = once(viewer, 'close');
    one.destroy();
    await gone;

    const other = await open('vnc');
    other.resume();
    const ended = once(other, 'end');
    await until('somebody came', () => viewers.length === 2);
    viewers.at(-1)?.end();
    await ended;
    await until('the agent lets go', () => lines.count() === 0);
  });
});

describe('what cannot be seen', () => {
  it('is refused with the reason', async () => {
    for (const kind of ['vnc', 'serial', 'screenshot', 'usage']) {
      await expect(open(kind, off)).rejects.toMatchObject({ code: 'vm.not_running', because: { state: 'stopped' } });
      await expect(open(kind, nobody)).rejects.toMatchObject({ code: 'domain.gone' });
    }
    await expect(open('telnet')).rejects.toMatchObject({ code: 'console.unknown_purpose' });
    await expect(openLine({ nc: service.nc, nodeId, what: { vmId: '../../etc', kind: 'vnc' } })).rejects.toMatchObject({ code: 'console.unknown_purpose' });
    expect(lines.count()).toBe(0);
  });
  it('has no screen where nothing is drawn', async () => {
    expect(await libvirtConsoles(machine.host).screen(vmId)).toMatchObject({ refused: 'console.no_screen' });
  });
});

describe('a picture', () => {
  it('is a PNG', async () => {
    const line = await open('screenshot');
    expect(isPng(await buffer(line))).toBe(true);
  });
});
