import { z } from 'zod';
import { event, type EventOf } from '../event.ts';
import { ConsoleId, NodeId, VmId } from '../ids.ts';
import { text } from '../text.ts';

/** `vnc`: the screen, in the protocol RFB (RFC 6143). `serial`: the bytes of the first serial port. */
export const ConsoleKind = z.enum(['vnc', 'serial']);
export type ConsoleKind = z.infer<typeof ConsoleKind>;

/** Somebody looks at a VM, and no more: what was shown and typed never enters the log. Who it was stands in meta. */
export const consoleEvents = {
  /** `address`: of whoever connected, as the gateway sees it; null where it cannot be known. */
  ConsoleOpened: event(z.object({ consoleId: ConsoleId, vmId: VmId, nodeId: NodeId, kind: ConsoleKind, address: text(100).nullable() })),
  /** `because`: a code. Bytes as they were last counted: where the gateway died, some seconds before its end. */
  ConsoleClosed: event(z.object({ consoleId: ConsoleId, vmId: VmId, because: text(100), bytesToGuest: z.int().nonnegative(), bytesFromGuest: z.int().nonnegative() })),
} as const;
export type ConsoleEvent = EventOf<typeof consoleEvents>;
