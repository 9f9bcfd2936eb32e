/** The program QEMU: not part of the stable API, see libvirt's documentation. */
import { agentTimeout, domain, noFlags, text, textOptional } from '../layouts.ts';
import { qemu } from '../procedure.ts';
import { flags, u32 } from '../xdr.ts';

export const qemuProcedures = {
  /** A QMP command as JSON, or text for `hmp`. Changing commands behind libvirt's back is not supported by it. */
  domainMonitorCommand: qemu(1, '0.8.3', { domain, command: text, flags: flags({ hmp: 1 }) }, text),
  /** Takes over a QEMU that was started by hand. */
  domainAttach: qemu(2, '0.9.4', { pid: u32, flags: noFlags }, domain),
  /**
   * A command of the guest agent as JSON; its answer as JSON. `timeout`: seconds; -1 the daemon's own
   * default (5 s), -2 for ever, 0 not at all.
   */
  domainAgentCommand: qemu(3, '0.10.0', { domain, command: text, timeout: agentTimeout, flags: noFlags }, textOptional),
} as const;
