import { z } from 'zod';
import { DomainPlan } from '../agent/agent.commands.ts';
import { command, type CommandOf } from '../command.ts';
import { ConsoleId, NodeId, VmId } from '../ids.ts';
import { text } from '../text.ts';
import { ConsoleKind } from './console.events.ts';

export const OpenConsoleBody = z.strictObject({ kind: ConsoleKind }).meta({ id: 'OpenConsole' });

/** What a line to a node is opened for. `screenshot` brings one PNG and ends; `xml` a DomainXml and `usage` a DomainUsage, as JSON. */
export const LinePurpose = z.discriminatedUnion('kind', [
  /** `password`: of a screen, sealed to the node, which asks whoever looks for it. */
  z.object({ vmId: VmId, kind: z.enum([...ConsoleKind.options, 'screenshot', 'usage']), password: text(1_000).optional() }),
  /** `plan`: the domain as it should be. */
  z.object({ vmId: VmId, kind: z.literal('xml'), generation: z.int().min(1), plan: DomainPlan }),
]);
export type LinePurpose = z.infer<typeof LinePurpose>;

/** A domain in libvirt's words. null: it does not run, or the node has none. */
export const DomainXml = z.object({
  live: z.string().nullable().describe('As it runs'),
  defined: z.string().nullable().describe('As libvirt would start it'),
  expected: z.string().describe('As it should be: what Chronovirt would tell this libvirt now. libvirt fills in what is left open'),
});
export type DomainXml = z.infer<typeof DomainXml>;

/** What a domain has used since it was started. null: its hypervisor does not say. */
export const DomainUsage = z.object({
  guestAgent: z.boolean().optional().describe('Whether a program in the guest has opened the port of its agent'),
  cpuSeconds: z.number().nullable().describe('Of all its CPUs together'),
  memory: z.object({ residentMib: z.int().nullable().describe('Of its process on the node'), availableMib: z.int().nullable().describe('Of the guest, by its balloon driver'), usableMib: z.int().nullable().describe('What of that is free or could be') }),
  disks: z.array(z.object({ volumeId: z.string(), readBytes: z.int(), writtenBytes: z.int(), fileBytes: z.int().describe('What the file takes on the node') })),
  nics: z.array(z.object({ mac: z.string(), receivedBytes: z.int(), sentBytes: z.int() })),
});
export type DomainUsage = z.infer<typeof DomainUsage>;

export const consoleCommands = {
  OpenConsole: command('gateway', 'consoleId', z.object({ consoleId: ConsoleId, vmId: VmId, nodeId: NodeId, kind: ConsoleKind, address: text(100).nullable() })),
  CloseConsole: command('gateway', 'consoleId', z.object({ consoleId: ConsoleId, vmId: VmId, because: text(100), bytesToGuest: z.int().nonnegative(), bytesFromGuest: z.int().nonnegative() })),
} as const;
export type ConsoleCommand = CommandOf<typeof consoleCommands>;
