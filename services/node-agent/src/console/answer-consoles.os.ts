/* Lines to this node that somebody opened to look at a guest: its screen, its serial port, a picture. */
import type { Duplex } from 'node:stream';
import { LinePurpose, type DomainUsage, type DomainXml } from '@chronovirt/contracts/console/console.commands';
import { screenPurpose } from '@chronovirt/contracts/vm/guest';
import type { NodeId, VmId } from '@chronovirt/contracts/ids';
import type { Bus, BusLog } from '@chronovirt/messaging/connect';
import { LineCut } from '@chronovirt/messaging/line';
import type { Line } from '@chronovirt/messaging/line';
import { answerLines } from '@chronovirt/messaging/lines';
import type { Lines } from '@chronovirt/messaging/lines';
import { isRefusal } from '../answer.ts';
import type { Refusal } from '../answer.ts';
import type { Unseal } from '../domain/execute.ts';
import type { DomainPlan } from '../hypervisor.ts';
import { askForPassword } from './rfb-password.ts';

export interface Shown {
  /** What comes before the stream: of a serial port, what it said last. */
  readonly before: Buffer;
  readonly stream: Duplex;
}

/** Each refuses with 'vm.not_running', 'domain.gone', or why this one cannot be shown; faults are thrown. */
export interface Consoles {
  /** The VNC server of its QEMU. */
  screen(vmId: VmId): Promise<Shown | Refusal>;
  /** One at a time: another is refused 'console.in_use'. */
  serial(vmId: VmId): Promise<Shown | Refusal>;
  /** A PNG. */
  screenshot(vmId: VmId): Promise<Buffer | Refusal>;
}

export interface Inspector {
  /** The domain of the plan as it runs, as it is defined, and as it should be; changes nothing. */
  inspect(plan: DomainPlan): Promise<DomainXml>;
  /** Refuses with 'vm.not_running' or 'domain.gone'. */
  measure(vmId: VmId): Promise<DomainUsage | Refusal>;
}

export interface AnswerConsoles {
  readonly nodeId: NodeId;
  readonly bus: Pick<Bus, 'nc'>;
  readonly consoles: Consoles;
  readonly inspector: Inspector;
  readonly log: BusLog;
  /** Opens what was sealed to this node; without it no screen is shown that needs a password. */
  readonly unseal?: Unseal;
}

export const answerConsoles = ({ nodeId, bus, consoles, inspector, log, unseal }: AnswerConsoles): Lines => answerLines({
  nc: bus.nc, nodeId, log,
  answer: async (what, line) => {
    const parsed = LinePurpose.safeParse(what);
    if (!parsed.success) throw new LineCut({ code: 'console.unknown_purpose' });
    const { vmId, kind } = parsed.data;
    const whole = await wholeOf(parsed.data, nodeId, consoles, inspector);
    if (whole !== undefined) {
      line.accept();
      line.end(whole);
      return;
    }
    const shown = unlessRefused(await (kind === 'vnc' ? consoles.screen(vmId) : consoles.serial(vmId)));
    const password = 'password' in parsed.data && parsed.data.password !== undefined && kind === 'vnc' ? opened(unseal, parsed.data.password, vmId) : undefined;
    await join(shown, line, password);
    log.info({ vmId, kind }, 'console opened');
    line.once('close', () => { log.info({ vmId, kind, bytesFromGuest: line.bytesSent, bytesToGuest: line.bytesReceived, because: line.errored instanceof LineCut ? line.errored.code : 'console.ended' }, 'console closed'); });
  },
});

/** What is sent in one piece; undefined: it is a stream. */
async function wholeOf(purpose: LinePurpose, nodeId: NodeId, consoles: Consoles, inspector: Inspector): Promise<Buffer | undefined> {
  switch (purpose.kind) {
    case 'screenshot': return unlessRefused(await consoles.screenshot(purpose.vmId));
    case 'usage': return Buffer.from(JSON.stringify(unlessRefused(await inspector.measure(purpose.vmId))));
    case 'xml': return Buffer.from(JSON.stringify(await inspector.inspect({ ...purpose.plan, vmId: purpose.vmId, nodeId, generation: purpose.generation })));
    default: return undefined;
  }
}

function unlessRefused<T extends object>(given: T | Refusal): T {
  if (isRefusal(given)) throw new LineCut({ code: given.refused, because: given.because });
  return given;
}

function opened(unseal: Unseal | undefined, sealed: string, vmId: VmId): string {
  try {
    if (unseal !== undefined) return unseal(sealed, screenPurpose(vmId));
  } catch {
    // It was sealed for another key: the same text will never open.
  }
  throw new LineCut({ code: 'node.cannot_unseal', because: { vmId } });
}

/** Neither outlives the other; what the guest said last still goes out. */
async function join({ before, stream }: Shown, line: Line, password: string | undefined): Promise<void> {
  stream.on('error', () => { line.cut('console.broken'); });
  stream.once('close', () => { line.end(); });
  line.once('close', () => { stream.destroy(); });
  // Whoever wanted it has gone meanwhile.
  if (line.destroyed) {
    stream.destroy();
    return;
  }
  line.accept();
  if (password !== undefined) {
    try {
      await askForPassword(line, stream, password);
    } catch (error) {
      stream.destroy();
      throw error;
    }
  }
  if (before.length > 0) line.write(before);
  stream.pipe(line);
  line.pipe(stream);
}
