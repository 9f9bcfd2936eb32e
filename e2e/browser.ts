/* A real browser with the real noVNC, on a page that the test serves. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium, type Page } from 'playwright-core';

const NOVNC = dirname(dirname(fileURLToPath(import.meta.resolve('@novnc/novnc'))));

const PAGE = `<!doctype html><title>console</title><style>body{margin:0}#screen{width:1024px;height:768px}</style><div id="screen"></div>
<script type="module">
  import RFB from '/novnc/core/rfb.js';
  window.look = ({ url, token }) => new Promise((resolve) => {
    const rfb = new RFB(document.getElementById('screen'), url, { wsProtocols: ['binary', 'cv-token.' + token] });
    window.events = [];
    for (const name of ['connect', 'disconnect', 'desktopname']) rfb.addEventListener(name, ({ detail }) => {
      window.events.push(name === 'disconnect' ? name + ' ' + detail.clean : name);
      if (name !== 'desktopname') resolve(window.events);
    });
    window.rfb = rfb;
  });
  /** Share of the canvas that has this colour, and how many colours there are. */
  window.seen = ([red, green, blue], canvas = document.querySelector('canvas')) => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let same = 0;
    const colours = new Set();
    for (let at = 0; at < data.length; at += 4) {
      if (data[at] === red && data[at + 1] === green && data[at + 2] === blue) same++;
      colours.add(data[at] << 16 | data[at + 1] << 8 | data[at + 2]);
    }
    return { share: same / (data.length / 4), colours: colours.size, width: canvas.width, height: canvas.height };
  };
  window.seenIn = async (url, colour) => {
    const picture = new Image();
    picture.src = url;
    await picture.decode();
    const canvas = Object.assign(document.createElement('canvas'), { width: picture.width, height: picture.height });
    canvas.getContext('2d').drawImage(picture, 0, 0);
    return window.seen(colour, canvas);
  };
  window.isReady = true;
</script>`;

export interface Seen {
  readonly share: number;
  readonly colours: number;
  readonly width: number;
  readonly height: number;
}

export interface Browser {
  readonly page: Page;
  /** What happened first. */
  look(offer: { readonly url: string; readonly token: string }): Promise<readonly string[]>;
  seen(colour: readonly [number, number, number]): Promise<Seen>;
  /** The same of a PNG. */
  seenIn(png: Buffer, colour: readonly [number, number, number]): Promise<Seen>;
  /** Presses the keys of a line of text. */
  type(text: string): Promise<void>;
  stop(): Promise<void>;
}

/** Debian's names for it. */
const program = (): string => {
  const found = ['/usr/bin/chromium-headless-shell', '/usr/bin/chromium'].find((path) => existsSync(path));
  if (found === undefined) throw new Error('there is no chromium: npm test installs it');
  return found;
};

/** Its page is at http://127.0.0.1:<port>. */
export async function openBrowser(port: number): Promise<Browser> {
  const server = createServer((request, response) => {
    const path = normalize(new URL(request.url ?? '/', 'http://page').pathname);
    if (path === '/') return void response.setHeader('content-type', 'text/html').end(PAGE);
    if (!path.startsWith('/novnc/') || !path.endsWith('.js')) return void response.writeHead(404).end();
    readFile(join(NOVNC, path.slice('/novnc/'.length))).then((text) => response.setHeader('content-type', 'text/javascript').end(text), () => response.writeHead(404).end());
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  // Its sandbox wants a user who is not root.
  const browser = await chromium.launch({ executablePath: program(), args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] });
  const page = await browser.newPage({ viewport: { width: 1_024, height: 768 } });
  await page.goto(`http://127.0.0.1:${String(port)}/`);
  await page.waitForFunction('window.isReady');
  return {
    page,
    look: ({ url, token }) => page.evaluate(`window.look(${JSON.stringify({ url, token })})`),
    seen: (colour) => page.evaluate(`window.seen(${JSON.stringify(colour)})`),
    seenIn: (png, colour) => page.evaluate(`window.seenIn(${JSON.stringify(`data:image/png;base64,${png.toString('base64')}`)}, ${JSON.stringify(colour)})`),
    type: async (text) => {
      await page.click('canvas');
      await page.keyboard.type(text, { delay: 20 });
      await page.keyboard.press('Enter');
    },
    stop: async () => {
      await browser.close();
      server.closeAllConnections();
      server.close();
    },
  };
}
