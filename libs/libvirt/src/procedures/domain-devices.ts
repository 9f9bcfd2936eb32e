/** Domains: their devices, vCPUs, memory, and how much of the node they may use. */
import * as parameters from '../parameter-fields.ts';
import { affect, cpuMapBytes, cpuSet, cpuSets, domain, noFlags, text, textOptional } from '../layouts.ts';
import { affectAndStrings, countOf, high, remote, room } from '../procedure.ts';
import { array, bool, defaulted, flags, hidden, i32, mapped, named, nothing, only, struct, u32, u64, u64Number } from '../xdr.ts';

const modify = flags({ live: 1, config: 2, force: 4 });
const vcpuFlags = flags({ live: 1, config: 2, maximum: 4, guest: 8, hotpluggable: 16, asyncUnplug: 32 });
/** vCPUs of which pins are told, if the caller says nothing. */
const vcpusMax = 256;

export const domainDeviceProcedures = {
  /** Without `live` and `config`, what the domain is now: running or not. */
  domainAttachDeviceFlags: remote(160, '0.7.7', { domain, xml: text, flags: modify }, nothing),
  /** Asks the guest to let go; the event deviceRemoved says that it has. */
  domainDetachDeviceFlags: remote(161, '0.7.7', { domain, xml: text, flags: modify }, nothing),
  domainUpdateDeviceFlags: remote(174, '0.8.0', { domain, xml: text, flags: modify }, nothing),
  domainDetachDeviceAlias: remote(392, '4.4.0', { domain, alias: text, flags: affect }, nothing),

  domainSetVcpusFlags: remote(199, '0.8.5', { domain, vcpus: u32, flags: vcpuFlags }, nothing),
  domainGetVcpusFlags: remote(200, '0.8.5', { domain, flags: vcpuFlags }, i32),
  domainGetMaxVcpus: remote(18, '0.2.1', { domain }, i32, high),
  /** Plugs the vCPUs of a list (`1,3-4`) in or out. `asyncUnplug` (12.4.0) does not wait for the guest: the event vcpuRemoved says when. */
  domainSetVcpu: remote(384, '3.1.0', { domain, vcpus: text, enabled: bool, flags: flags({ live: 1, config: 2, asyncUnplug: 4 }) }, nothing),
  /** What the guest agent says of the vCPUs. */
  domainGetGuestVcpus: remote(371, '2.0.0', { domain, flags: noFlags }, parameters.guestVcpus),
  domainSetGuestVcpus: remote(372, '2.0.0', { domain, vcpus: text, enabled: bool, flags: noFlags }, nothing),
  /** Each vCPU that runs: on which CPU it is, and where it may be. */
  domainGetVcpus: remote(
    20,
    '0.1.4',
    { domain, vcpusMax: defaulted(i32, vcpusMax), mapBytes: hidden(i32, cpuMapBytes) },
    mapped(struct({ info: array(struct({ vcpu: u32, state: named({ offline: 0, running: 1, blocked: 2 }), timeNs: u64, cpu: i32 }), 16_384), cpus: cpuSets }), {
      decode: ({ info, cpus }) => info.map((one, index) => ({ ...one, cpus: cpus[index] ?? [] })),
      encode: (vcpus: readonly { readonly vcpu: number; readonly state: 'offline' | 'running' | 'blocked'; readonly timeNs: bigint; readonly cpu: number; readonly cpus: readonly number[] }[]) => ({
        info: vcpus,
        cpus: vcpus.map((one) => one.cpus),
      }),
    }),
    high,
  ),
  domainPinVcpuFlags: remote(225, '0.9.3', { domain, vcpu: u32, cpus: cpuSet, flags: affect }, nothing),
  /** For each vCPU the CPUs it may be on. */
  domainGetVcpuPinInfo: remote(
    230,
    '0.9.3',
    { domain, vcpusMax: defaulted(i32, vcpusMax), mapBytes: hidden(i32, cpuMapBytes), flags: affect },
    mapped(struct({ cpus: cpuSets, count: i32 }), {
      decode: ({ cpus, count }) => cpus.slice(0, count),
      encode: (cpus: readonly (readonly number[])[]) => ({ cpus, count: cpus.length }),
    }),
  ),
  domainPinEmulator: remote(279, '0.10.0', { domain, cpus: cpuSet, flags: affect }, nothing),
  domainGetEmulatorPinInfo: remote(280, '0.10.0', { domain, mapBytes: hidden(i32, cpuMapBytes), flags: affect }, only('cpus', { cpus: cpuSet, result: hidden(i32, 1) })),

  domainGetIothreadInfo: remote(
    351,
    '1.2.14',
    { domain, flags: affect },
    only('threads', { threads: array(struct({ iothread: u32, cpus: cpuSet }), 16_384), count: countOf('threads', u32) }),
  ),
  domainAddIothread: remote(355, '1.2.15', { domain, iothread: u32, flags: affect }, nothing),
  domainDelIothread: remote(356, '1.2.15', { domain, iothread: u32, flags: affect }, nothing),
  domainPinIothread: remote(352, '1.2.14', { domain, iothread: u32, cpus: cpuSet, flags: affect }, nothing),
  domainSetIothreadParams: remote(402, '4.10.0', { domain, iothread: u32, parameters: parameters.ioThreadParameters, flags: affect }, nothing),

  domainGetMaxMemory: remote(17, '0.0.3', { domain }, u64Number, high),
  domainSetMaxMemory: remote(30, '0.0.3', { domain, memoryKib: u64Number }, nothing, high),
  domainSetMemoryFlags: remote(204, '0.9.0', { domain, memoryKib: u64Number, flags: flags({ live: 1, config: 2, maximum: 4 }) }, nothing),
  /** How often the balloon driver reports, in seconds; 0 stops it. */
  domainSetMemoryStatsPeriod: remote(308, '1.1.1', { domain, seconds: i32, flags: affect }, nothing),
  domainGetMemoryParameters: remote(198, '0.8.5', { domain, room: room(16), flags: affectAndStrings }, only('parameters', { parameters: parameters.memoryParameters, count: countOf('parameters') })),
  domainSetMemoryParameters: remote(197, '0.8.5', { domain, parameters: parameters.memoryParameters, flags: affect }, nothing),
  domainGetNumaParameters: remote(255, '0.9.9', { domain, room: room(16), flags: affectAndStrings }, only('parameters', { parameters: parameters.numaParameters, count: countOf('parameters') })),
  domainSetNumaParameters: remote(254, '0.9.9', { domain, parameters: parameters.numaParameters, flags: affect }, nothing),
  domainGetBlkioParameters: remote(206, '0.9.0', { domain, room: room(16), flags: affectAndStrings }, only('parameters', { parameters: parameters.blkioParameters, count: countOf('parameters') })),
  domainSetBlkioParameters: remote(205, '0.9.0', { domain, parameters: parameters.blkioParameters, flags: affect }, nothing),
  /** The scheduler's name (`posix`), and how many parameters it has. */
  domainGetSchedulerType: remote(56, '0.2.3', { domain }, struct({ type: text, parameters: i32 })),
  domainGetSchedulerParametersFlags: remote(223, '0.9.2', { domain, room: room(16), flags: affectAndStrings }, parameters.schedulerParameters),
  domainSetSchedulerParametersFlags: remote(219, '0.9.2', { domain, parameters: parameters.schedulerParameters, flags: affect }, nothing),
  domainGetBlockIoTune: remote(
    253,
    '0.9.8',
    { domain, disk: textOptional, room: room(32), flags: affectAndStrings },
    only('parameters', { parameters: parameters.blockIoTune, count: countOf('parameters') }),
  ),
  domainSetBlockIoTune: remote(252, '0.9.8', { domain, disk: text, parameters: parameters.blockIoTune, flags: affect }, nothing),
  /** Limits that several disks share: those whose XML names the group. */
  domainSetThrottleGroup: remote(451, '11.2.0', { domain, group: text, parameters: parameters.blockIoTune, flags: affect }, nothing),
  domainDelThrottleGroup: remote(452, '11.2.0', { domain, group: textOptional, flags: affect }, nothing),
  /** Has the guest's interface (all of them without `device`: a MAC address, or the node's end) tell the switches where it is. */
  domainAnnounceInterface: remote(456, '12.5.0', { domain, device: textOptional, parameters: parameters.announceParameters, flags: noFlags }, nothing),
  /** `device`: the MAC address, or the node's end of the interface. */
  domainGetInterfaceParameters: remote(
    257,
    '0.9.9',
    { domain, device: text, room: room(16), flags: affectAndStrings },
    only('parameters', { parameters: parameters.bandwidth, count: countOf('parameters') }),
  ),
  domainSetInterfaceParameters: remote(256, '0.9.9', { domain, device: text, parameters: parameters.bandwidth, flags: affect }, nothing),
  domainGetPerfEvents: remote(365, '1.3.3', { domain, flags: affectAndStrings }, parameters.perfEvents),
  domainSetPerfEvents: remote(366, '1.3.3', { domain, parameters: parameters.perfEvents, flags: affect }, nothing),
} as const;
