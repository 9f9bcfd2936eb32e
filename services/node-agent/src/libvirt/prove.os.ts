/*
 * Whether a machine that was started has come up. Each criterion is looked at from outside, and says what it
 * says, no more (contracts/backup/backup.ts). Nothing is remembered: whoever comes again after a crash looks on.
 */
import { open } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { VmId } from '@chronovirt/contracts/ids';
import type { Libvirt } from '@chronovirt/libvirt/connection';
import type { Domain } from '@chronovirt/libvirt/layouts';
import { domainStats } from '@chronovirt/libvirt/stats';
import { CANCELLED, refuse } from '../answer.ts';
import type { Hypervisor, SeenDomain } from '../hypervisor.ts';
import type { LibvirtHost } from './host.ts';

export interface ProofPorts {
  readonly slow: Libvirt;
  readonly host: Pick<LibvirtHost, 'driver' | 'consoleLogOf'>;
  readonly find: (vmId: VmId) => Promise<Domain | undefined>;
  readonly look: (domain: Domain) => Promise<Pick<SeenDomain, 'state' | 'reason'> | undefined>;
  readonly answersAgent: (domain: Domain) => Promise<boolean>;
}

interface Look {
  readonly up: boolean;
  readonly says: string;
}

const LOOK_MS = 500;
/** A firmware that finds nothing to boot reads less than a tenth of this; a kernel alone is more. */
const READ_BYTES_MIN = 4 * 2 ** 20;
/** So long it runs on after that. */
const RUNS_ON_MS = 10_000;
const PIECE_BYTES = 1_048_576;

export function libvirtProof({ slow, host, find, look, answersAgent }: ProofPorts): Pick<Hypervisor, 'prove'> {
  const readOfFirstDisk = async (domain: Domain): Promise<number> => {
    const [stats] = await slow.connectGetAllDomainStats({ domains: [domain], groups: ['block'], flags: ['nowait'] });
    return stats === undefined ? 0 : Number(domainStats(stats).blocks[0]?.readBytes ?? 0n);
  };

  const byDisk = (domain: Domain): (() => Promise<Look>) => {
    let enoughSince: number | undefined;
    return async () => {
      const bytes = await readOfFirstDisk(domain);
      if (bytes >= READ_BYTES_MIN) enoughSince ??= performance.now();
      const up = enoughSince !== undefined && performance.now() - enoughSince >= RUNS_ON_MS;
      return { up, says: `it has read ${String(Math.floor(bytes / 1_024))} KiB of its first disk${up ? ' and runs on' : ''}` };
    };
  };

  const byAgent = (domain: Domain): (() => Promise<Look>) => async () =>
    ((await answersAgent(domain)) ? { up: true, says: 'its guest agent answers' } : { up: false, says: 'its guest agent does not answer' });

  const byConsole = (path: string, word: string): (() => Promise<Look>) => {
    const wanted = Buffer.from(word);
    let from = 0;
    let before: Buffer = Buffer.alloc(0);
    return async () => {
      const file = await open(path).catch(() => undefined);
      if (file === undefined) return { up: false, says: 'its serial console has shown nothing' };
      try {
        // virtlogd has begun another file.
        if ((await file.stat()).size < from) from = 0;
        for (;;) {
          const { buffer, bytesRead } = await file.read(Buffer.alloc(PIECE_BYTES), 0, PIECE_BYTES, from);
          if (bytesRead === 0) return { up: false, says: `its serial console has shown ${String(from)} bytes without the word` };
          from += bytesRead;
          // The word may lie across two pieces.
          const piece = Buffer.concat([before, buffer.subarray(0, bytesRead)]);
          if (piece.includes(wanted)) return { up: true, says: 'the word is on its serial console' };
          before = piece.subarray(Math.max(0, piece.length - wanted.length + 1));
        }
      } finally {
        await file.close();
      }
    };
  };

  return {
    prove: async (vmId, { criterion, word, timeoutSeconds }, signal) => {
      const domain = await find(vmId);
      if (domain === undefined) return refuse('domain.gone', { vmId, says: 'this node has no such domain' });
      const began = performance.now();
      const seconds = (): number => Math.round((performance.now() - began) / 1_000);
      const seeWhether = host.driver !== 'qemu'
        ? () => Promise.resolve({ up: true, says: 'it runs, on a node without guests' })
        : criterion === 'agent' ? byAgent(domain) : criterion === 'console' ? byConsole(host.consoleLogOf(vmId), word ?? '') : byDisk(domain);
      for (;;) {
        if (signal.aborted) return CANCELLED;
        const seen = await look(domain);
        if (seen?.state !== 'running') return refuse('drill.not_seen', { criterion, seconds: seconds(), says: `it does not run any more (${seen?.state ?? 'gone'}, ${seen?.reason ?? 'gone'})` });
        const { up, says } = await seeWhether();
        if (up) return { criterion, seconds: seconds(), says };
        if (seconds() >= timeoutSeconds) return refuse('drill.not_seen', { criterion, seconds: seconds(), says });
        await delay(LOOK_MS, undefined, { signal }).catch(() => undefined);
      }
    },
  };
}
