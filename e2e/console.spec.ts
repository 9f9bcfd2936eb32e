/* Screens and serial ports of real guests, through the gateway and the agent, as people use them. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../tools/ports.ts';
import { openBrowser, type Browser } from './browser.ts';
import { startPlatform, type Platform } from './platform.ts';
import { addQemuNode, GUEST_NETWORK, type QemuNode } from './qemu-node.ts';
import { wish, type Accepted, type Event, type Rest, type Vm } from './rest.ts';
import { connectConsole, offered, readScreen, type ConsoleClient } from './websocket.ts';

const BOOTED_WITHIN_MS = 90_000;
/** The blue of a VGA text screen, as QEMU makes 8 bits of VGA's 6. */
const BLUE = [0, 0, 168] as const;

describe('the consoles of a guest', () => {
  let platform: Platform;
  let rest: Rest;
  let node: QemuNode;
  let vm: Vm;
  let pagePort: number;
  beforeAll(async () => {
    pagePort = await freePort();
    platform = await startPlatform({ replicas: { 'api-gateway': 2 }, environment: { CV_GATEWAY_CONSOLE_ORIGINS: `http://127.0.0.1:${String(pagePort)}` } });
    ({ rest } = platform);
    node = await addQemuNode(platform, 'metal');
    vm = await rest.running({ name: 'shown', image: 'micro', network: GUEST_NETWORK, vcpus: 1, memoryMib: 128, diskGib: 1 });
    await rest.until('the guest answers', () => node.inGuest(vm, '/bin/cat', '/proc/uptime'), BOOTED_WITHIN_MS, 250);
    await rest.until('the guest asks who is there', async () => node.console(vm).includes('login:'), BOOTED_WITHIN_MS, 250);
  });
  afterAll(async () => {
    await platform.stop();
    await node.stop();
  });

  const open = async (kind: 'vnc' | 'serial'): Promise<ConsoleClient> => connectConsole(await offered(rest, vm, kind));
  const history = async (): Promise<readonly Event[]> => (await rest.all<Event>(`/v1/vms/${vm.id}/history`)).filter(({ category }) => category === 'console');
  /** The console that was opened last: nobody sees a byte before that is in the log. */
  const lastOpened = async (): Promise<{ readonly subject: string }> => {
    const [row] = await platform.sql<{ id: string }>(`select data ->> 'consoleId' as id from event_log.event where type = 'ConsoleOpened' order by position desc limit 1`);
    if (row === undefined) throw new Error('no console was recorded');
    return { subject: row.id };
  };
  const closedOf = ({ subject }: { readonly subject: string }, withinMs = 20_000): Promise<Event> =>
    rest.until('the end is recorded', async () => (await history()).find((event) => event.type === 'ConsoleClosed' && event.subject === subject), withinMs, 100);
  /** As ://host:port, from its own words. */
  const otherGateway = (): string => {
    const found = /"url":"http(:[^"]+)"/.exec(platform.logOf('api-gateway-2', 100_000))?.[1];
    if (found === undefined) throw new Error('the other gateway does not say where it listens');
    return found;
  };
  const paint = (): Promise<string> => node.inGuest(vm, '/bin/sh', '-c', String.raw`printf '\033[44m\033[2J\033[H\033[1;37mthis is the screen of a guest\n' > /dev/tty0`);

  it('A2-03 somebody logs in over the serial console, sees what it said before, and pastes', async () => {
    const terminal = await open('serial');
    // The prompt was written long before anybody looked.
    await terminal.says(/login: /);
    terminal.send('root\r');
    await terminal.says(/# /);
    terminal.send('echo "$(id -un) on $(hostname) has $((6 * 7))"\r');
    await terminal.says(/root on \S+ has 42/);
    // Not a byte is missing of more than fits into one message.
    const counted = Array.from({ length: 10_000 }, (_, index) => String(index + 1)).join(',');
    terminal.send('seq 1 10000 | tr "\\n" ","; echo end\r');
    expect(await terminal.says(/\r\n1,2,[0-9,]*,end\r\n/)).toBe(`\r\n${counted},end\r\n`);
    const pasted = Array.from({ length: 60 }, (_, line) => `line ${String(line)} ${'x'.repeat(50)}`).join('\n');
    terminal.send(`stty rows 50 cols 132; cat > /tmp/pasted; echo done-$?\r${pasted}\n\u0004`);
    await terminal.says(/done-0/);
    expect(await node.inGuest(vm, '/bin/sh', '-c', 'wc -l < /tmp/pasted; tail -n 1 /tmp/pasted')).toBe(`60\nline 59 ${'x'.repeat(50)}\n`);
    terminal.send('stty size; exit\r');
    await terminal.says(/50 132/);
    await terminal.says(/login: /);
    terminal.close();
    const { subject } = await lastOpened();
    const closed = await closedOf({ subject });
    const opened = (await history()).find((event) => event.subject === subject);
    expect(opened).toMatchObject({ type: 'ConsoleOpened', vmId: vm.id, data: { kind: 'serial', nodeId: node.nodeId, address: '127.0.0.1' }, actor: expect.stringMatching(/^token_/) as string });
    expect(closed).toMatchObject({ actor: opened?.actor, data: { because: 'console.left' } });
    expect(closed.data['bytesToGuest']).toBeGreaterThan(pasted.length);
    expect(closed.data['bytesFromGuest']).toBeGreaterThan(Buffer.byteLength(counted));
    // What was typed is nobody's business but the guest's.
    expect(JSON.stringify(await history())).not.toContain('pasted');
  });

  it('A2-03 one at a time has the serial console; whoever comes second is told, and gets it once it is free', async () => {
    const first = await open('serial');
    await first.says(/login: /);
    const second = await open('serial');
    expect(await second.closed).toEqual({ code: 4_409, reason: 'console.in_use' });
    first.close();
    const third = await open('serial');
    await third.says(/login: /);
    third.close();
  });

  it('A2-01 the screen is RFB: a handshake, and every pixel', async () => {
    await paint();
    const client = await open('vnc');
    const { width, height, pixels } = await readScreen(client);
    expect([width, height]).toEqual([720, 400]);
    let blue = 0;
    for (let at = 0; at < pixels.length; at += 4) if (pixels[at] === BLUE[2] && pixels[at + 1] === BLUE[1] && pixels[at + 2] === BLUE[0]) blue++;
    expect(blue / (width * height)).toBeGreaterThan(0.9);
    client.close();
  });

  it('A2-02 a password of the screen is asked for from the next connection on, and not any more when it is taken off', async () => {
    await paint();
    const looking = await open('vnc');
    await readScreen(looking);
    const set = await rest.ok<{ password?: string }>('PUT', `/v1/vms/${vm.id}/screen-password`, { password: 'cAn-8ry"' });
    expect(set.password).toBeUndefined();
    // Whoever looks already goes on.
    looking.send(Uint8Array.of(3, 0, 0, 0, 0, 0, 0, 1, 0, 1));
    expect((await looking.read(1)).readUInt8()).toBe(0);
    looking.close();

    await expect(readScreen(await open('vnc'))).rejects.toThrow('it wants a password');
    const wrong = await open('vnc');
    await expect(readScreen(wrong, 'cAn-8ry!')).rejects.toThrow('the handshake was refused: the password is wrong');
    const right = await open('vnc');
    expect(await readScreen(right, 'cAn-8ry"')).toMatchObject({ width: 720, height: 400 });
    right.close();

    // Neither libvirt nor the log has it.
    expect(await node.virsh('dumpxml', '--security-info', await node.domainOf(vm))).not.toContain('passwd');
    expect(await platform.sql(`select type from event_log.event where data::text like '%cAn-8ry%'`)).toEqual([]);

    const made = await rest.ok<{ password?: string }>('PUT', `/v1/vms/${vm.id}/screen-password`, {});
    expect(made.password).toMatch(/^[A-Za-z2-9]{8}$/);
    await expect(readScreen(await open('vnc'), 'cAn-8ry"')).rejects.toThrow('the password is wrong');
    await readScreen(await open('vnc'), made.password);
    await rest.ok('DELETE', `/v1/vms/${vm.id}/screen-password`);
    const free = await open('vnc');
    expect(await readScreen(free)).toMatchObject({ width: 720 });
    free.close();
  });

  it('A2-01 a real noVNC in a real browser shows it, takes keys, and shows it again when the page is loaded anew', async () => {
    await paint();
    let browser: Browser | undefined;
    try {
      browser = await openBrowser(pagePort);
      for (const time of ['first', 'reloaded']) {
        if (time === 'reloaded') {
          const left = await lastOpened();
          await browser.page.reload();
          await browser.page.waitForFunction('window.isReady');
          expect(await closedOf(left)).toMatchObject({ data: { because: 'console.left' } });
        }
        const began = performance.now();
        expect(await browser.look(await offered(rest, vm, 'vnc'))).toEqual(expect.arrayContaining(['connect']));
        const seen = await rest.until('the canvas is blue', async () => {
          const now = await (browser as Browser).seen(BLUE);
          return now.share > 0.9 ? now : undefined;
        }, 10_000, 20);
        process.stdout.write(`screen ${time}: ${String(Math.round(performance.now() - began))} ms from asking to seeing\n`);
        expect(seen).toMatchObject({ width: 720, height: 400 });
        // The background, and the letters on it.
        expect(seen.colours).toBeGreaterThanOrEqual(2);
      }
      // Keys go the other way: somebody reads a line at the guest's keyboard.
      await node.inGuest(vm, '/bin/sh', '-c', '(head -n 1 < /dev/tty1 > /tmp/typed) > /dev/null 2>&1 &');
      await browser.type('seen and typed');
      await rest.until('the guest heard the keys', async () => (await node.inGuest(vm, '/bin/cat', '/tmp/typed')) === 'seen and typed\n', 20_000, 250);
      const file = process.env['CV_E2E_SCREENSHOT'];
      const picture = await browser.page.screenshot(file === undefined ? {} : { path: file });
      expect(picture.length).toBeGreaterThan(1_000);
    } finally {
      await browser?.stop();
    }
  });

  it('A2-01 a picture of the screen is a PNG of what is there', async () => {
    await paint();
    const response = await fetch(`${platform.url}/v1/vms/${vm.id}/screenshot`, { headers: { authorization: `Bearer ${platform.token}` } });
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'image/png']);
    const png = Buffer.from(await response.arrayBuffer());
    const browser = await openBrowser(pagePort);
    try {
      const seen = await browser.seenIn(png, BLUE);
      expect(seen).toMatchObject({ width: 720, height: 400 });
      expect(seen.share).toBeGreaterThan(0.9);
      expect(seen.colours).toBeGreaterThanOrEqual(2);
    } finally {
      await browser.stop();
    }
  });

  it('A2-01 a token lets one in, once, at whichever gateway', async () => {
    const offer = await offered(rest, vm, 'serial');
    const elsewhere = { ...offer, url: `ws${otherGateway()}/v1/console` };
    expect(elsewhere.url).not.toBe(offer.url);
    const terminal = await connectConsole(elsewhere);
    await terminal.says(/login: /);
    await expect(connectConsole(offer)).rejects.toThrow('no WebSocket');
    await expect(connectConsole(elsewhere)).rejects.toThrow('no WebSocket');
    terminal.close();
    // Neither gateway nor agent wrote it down.
    for (const part of ['api-gateway', 'api-gateway-2', node.part, 'nats']) expect(platform.logOf(part, 10_000_000)).not.toContain(offer.token);
  });

  it('A2-01 when the agent is killed the client hears it within seconds, and can come back', async () => {
    const screen = await open('vnc');
    await screen.read(12);
    const opened = await lastOpened();
    await platform.kill9(node.part);
    const { code, reason } = await screen.closed;
    expect([code, reason]).toEqual([4_503, 'line.silent']);
    expect(await closedOf(opened)).toMatchObject({ data: { because: 'line.silent' } });
    await platform.start(node.part);
    await rest.status(vm.id, 'running', 60_000);
    const again = await open('vnc');
    expect((await again.read(12)).toString()).toBe('RFB 003.008\n');
    again.close();
  });

  it('A2-01 when the gateway is killed the guest\'s side ends too, and another gateway records it', async () => {
    const terminal = await open('serial');
    await terminal.says(/login: /);
    const opened = await lastOpened();
    await platform.kill9('api-gateway');
    expect((await terminal.closed).code).toBe(1_006);
    await platform.start('api-gateway');
    // The console is one at a time: it is free once the agent noticed that nobody is there.
    const again = await rest.until('the console is free', async () => {
      const next = await open('serial');
      const outcome = await Promise.race([next.says(/login: /).catch(() => undefined), next.closed.then(() => undefined)]);
      return outcome === undefined ? undefined : next;
    }, 20_000, 200);
    again.close();
    expect(await closedOf(opened, 90_000)).toMatchObject({ data: { because: 'gateway.gone' } });
  });

  it('A2-01 a gateway that is stopped says so to who looks through it, and records it', async () => {
    const offer = await offered(rest, vm, 'vnc');
    const screen = await connectConsole({ ...offer, url: `ws${otherGateway()}/v1/console` });
    await screen.read(12);
    const opened = await lastOpened();
    await platform.terminate('api-gateway-2');
    expect(await screen.closed).toEqual({ code: 4_503, reason: 'gateway.stopping' });
    expect(await closedOf(opened)).toMatchObject({ data: { because: 'gateway.stopping' } });
  });

  it('A2-01 of a VM that is stopped there is nothing to see, and who looks is told', async () => {
    const screen = await open('vnc');
    await screen.read(12);
    const terminal = await open('serial');
    await terminal.says(/login: /);
    const { operation } = await rest.ok<Accepted>('POST', `/v1/vms/${vm.id}/stop`, { force: true, timeoutSeconds: 10 });
    await rest.succeeded(operation.id, 60_000);
    expect(await screen.closed).toEqual({ code: 1_000, reason: 'console.ended' });
    expect(await terminal.closed).toEqual({ code: 1_000, reason: 'console.ended' });
    await expect(offered(rest, vm, 'vnc')).rejects.toMatchObject({ status: 409, code: 'vm.not_running' });
    await expect(rest.ok('GET', `/v1/vms/${vm.id}/screenshot`)).rejects.toMatchObject({ status: 409, code: 'vm.not_running' });
    expect(node.tcpPorts().filter((port) => port >= 5_900 && port < 6_900)).toEqual([]);
    await rest.gone(vm.id);
  });
});

describe('the consoles of a simulated guest, with the control plane in one process', () => {
  let platform: Platform;
  beforeAll(async () => { platform = await startPlatform({ split: false, fleet: { nodes: 1 } }); });
  afterAll(() => platform.stop());

  it('A2-03 its serial port answers, and that it has no screen is said', async () => {
    const vm = await platform.rest.running(wish('imagined'));
    const terminal = await connectConsole(await offered(platform.rest, vm, 'serial'));
    await terminal.says(/login: /);
    terminal.send('anybody\r');
    await terminal.says(/anybody: nobody here has that name/);
    const screen = await connectConsole(await offered(platform.rest, vm, 'vnc'));
    expect(await screen.closed).toEqual({ code: 4_409, reason: 'console.no_screen' });
    await platform.rest.gone(vm.id);
    expect(await terminal.closed).toEqual({ code: 1_000, reason: 'console.ended' });
  });
});
