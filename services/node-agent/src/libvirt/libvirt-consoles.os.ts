/*
 * Screens and serial ports by libvirt.
 *
 * Every one has a connection to libvirtd of its own, for as long as it lasts. libvirt's streams have no flow
 * control of their own: to slow one down its whole connection is not read, and whatever else went by it
 * would stand still with it, events and answers too. A connection costs a millisecond or two.
 *
 * A screen needs none: it is a unix socket of QEMU's, and libvirtd is asked only when nobody answers there.
 */
import { once } from 'node:events';
import { open } from 'node:fs/promises';
import { connect as connectSocket } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { uuidOf } from '@chronovirt/contracts/ids';
import type { VmId } from '@chronovirt/contracts/ids';
import { connect } from '@chronovirt/libvirt/connection';
import type { Libvirt } from '@chronovirt/libvirt/connection';
import { errorCodes, isNoDomain, isOperationInvalid, LibvirtError } from '@chronovirt/libvirt/errors';
import type { Domain } from '@chronovirt/libvirt/layouts';
import { isRefusal, refuse } from '../answer.ts';
import type { Refusal } from '../answer.ts';
import type { Consoles, Shown } from '../console/answer-consoles.os.ts';
import { isPng, pngOf } from '../console/png.os.ts';
import type { LibvirtHost } from './host.ts';
import { HypervisorFault, stateOf } from './libvirt-hypervisor.os.ts';

/** Of what a serial port said before somebody looked, in bytes. */
const SCROLL_BACK_BYTES = 65_536;
const CALL_MS = 8_000;
const PICTURE_BYTES_MAX = 64 * 2 ** 20;
/** Whoever loads his page anew comes before the end of what he had is through. */
const IN_USE_TRIES = 20;
const IN_USE_PAUSE_MS = 100;

export function libvirtConsoles(host: Pick<LibvirtHost, 'driver' | 'target' | 'screenSocketOf' | 'consoleLogOf'>): Consoles {
  /** Runs `work` on a domain that runs, over a connection of its own, which ends with what `work` answers unless that is kept. */
  const withDomain = async <T>(vmId: VmId, what: string, work: (libvirt: Libvirt, domain: Domain, keep: () => void) => Promise<T | Refusal>): Promise<T | Refusal> => {
    let libvirt: Libvirt | undefined;
    let kept = false;
    try {
      libvirt = await connect(host.target, { keepalive: false, callTimeoutMs: CALL_MS });
      const domain = await libvirt.domainLookupByUuid({ uuid: uuidOf(vmId) });
      const { state, reason } = await libvirt.domainGetState({ domain });
      const seen = stateOf(state, reason);
      if (seen.state !== 'running' && seen.state !== 'paused') return refuse('vm.not_running', { state: seen.state });
      return await work(libvirt, domain, () => { kept = true; });
    } catch (error) {
      if (isNoDomain(error)) return refuse('domain.gone', { says: 'this node has no such domain' });
      // It stopped in between.
      if (isOperationInvalid(error)) return refuse('vm.not_running', { state: 'stopped' });
      throw new HypervisorFault(what, vmId, error);
    } finally {
      if (!kept) await libvirt?.close();
    }
  };

  const openConsole = async (libvirt: Libvirt, domain: Domain): Promise<Duplex | Refusal> => {
    for (let tries = 1; ; tries++) {
      try {
        return await libvirt.domainOpenConsole({ domain, device: null, flags: ['safe'] });
      } catch (error) {
        if (!(error instanceof LibvirtError) || error.code !== errorCodes.operationFailed || !/active console session/i.test(error.reason)) throw error;
        if (tries === IN_USE_TRIES) return refuse('console.in_use', { says: 'somebody has this serial console open' });
        await delay(IN_USE_PAUSE_MS);
      }
    }
  };

  return {
    screen: async (vmId) => {
      if (host.driver !== 'qemu') return refuse('console.no_screen', { says: `a VM on a ${host.driver === 'test' ? 'test' : 'simulated'} node has no screen` });
      const socket = connectSocket(host.screenSocketOf(vmId));
      try {
        await once(socket, 'connect');
        return { before: Buffer.alloc(0), stream: socket };
      } catch (error) {
        socket.destroy();
        const { code } = error as NodeJS.ErrnoException;
        if (code !== 'ENOENT' && code !== 'ECONNREFUSED') throw new HypervisorFault('open the screen of', vmId, error);
        return withDomain<Shown>(vmId, 'look at', () => Promise.resolve(refuse('console.no_screen', { says: 'its QEMU does not answer where its screen should be' })));
      }
    },

    serial: (vmId) => withDomain<Shown>(vmId, 'open the console of', async (libvirt, domain, keep) => {
      const stream = await openConsole(libvirt, domain);
      if (isRefusal(stream)) return stream;
      keep();
      stream.once('close', () => void libvirt.close());
      // Behind the opening: a byte may show twice that came in between, and none is missing.
      return { before: await tailOf(host.consoleLogOf(vmId)), stream };
    }),

    screenshot: (vmId) => withDomain(vmId, 'take a picture of', async (libvirt, domain) => {
      if (host.driver === 'test') return refuse('console.no_screen', { says: 'a VM on a test node has no screen' });
      const stream = await libvirt.domainScreenshot({ domain });
      const pieces: Buffer[] = [];
      let bytes = 0;
      for await (const piece of stream as AsyncIterable<Buffer>) {
        bytes += piece.length;
        if (bytes > PICTURE_BYTES_MAX) throw new Error('the picture has no end');
        pieces.push(piece);
      }
      const picture = Buffer.concat(pieces);
      return isPng(picture) ? picture : pngOf(picture);
    }),
  };
}

/** The end of a log, from the beginning of a line; empty where there is none. */
async function tailOf(path: string): Promise<Buffer> {
  const file = await open(path).catch(() => undefined);
  if (file === undefined) return Buffer.alloc(0);
  try {
    const { size } = await file.stat();
    const from = Math.max(0, size - SCROLL_BACK_BYTES);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(size - from), 0, size - from, from);
    const tail = buffer.subarray(0, bytesRead);
    // The middle of a line may be the middle of a character, or of what moves the cursor.
    return from === 0 ? tail : tail.subarray(tail.indexOf(0x0a) + 1);
  } finally {
    await file.close();
  }
}
