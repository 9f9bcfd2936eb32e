/** Domains: finding and describing them, and their life. */
import * as parameters from '../parameter-fields.ts';
import { addressSource, affect, charsText, domain, domainStateFlags, domainInfo, domainStateAndReason, interfaceAddresses, metadataKinds, noFlags, shutdownModes, text, textOptional, uuid } from '../layouts.ts';
import { countOf, high, needResults, remote } from '../procedure.ts';
import { array, bool, choice, defaulted, flags, i32, i64Number, named, nothing, only, struct, u32, u64Number } from '../xdr.ts';

/** libvirt's own limit for a bulk listing of domains, networks and pools. */
const listMax = 16_384;

const domainFilter = flags({
  ...domainStateFlags,
  managedSave: 1 << 8,
  noManagedSave: 1 << 9,
  autostart: 1 << 10,
  noAutostart: 1 << 11,
  hasSnapshot: 1 << 12,
  noSnapshot: 1 << 13,
  hasCheckpoint: 1 << 14,
  noCheckpoint: 1 << 15,
});

const startFlags = flags({ paused: 1, autodestroy: 2, bypassCache: 4, forceBoot: 8, validate: 16, resetNvram: 32 });
const saveFlags = flags({ bypassCache: 1, running: 2, paused: 4, resetNvram: 8 });

export const domainProcedures = {
  /** At most 16,384; with more the daemon answers an error. */
  connectListAllDomains: remote(273, '0.9.13', { needResults, filter: domainFilter }, only('domains', { domains: array(domain, listMax), count: countOf('domains', u32) }), high),
  connectNumOfDomains: remote(51, '0.0.3', {}, i32, high),
  domainLookupByName: remote(23, '0.0.3', { name: text }, domain, high),
  domainLookupByUuid: remote(24, '0.0.5', { uuid }, domain, high),
  domainLookupById: remote(22, '0.0.3', { id: i32 }, domain, high),
  domainGetState: remote(212, '0.9.2', { domain, flags: noFlags }, domainStateAndReason, high),
  domainGetInfo: remote(16, '0.0.3', { domain }, domainInfo),
  domainGetXmlDesc: remote(14, '0.0.3', { domain, flags: flags({ secure: 1, inactive: 2, updateCpu: 4, migratable: 8 }) }, text),
  domainIsActive: remote(150, '0.7.3', { domain }, bool, high),
  domainIsPersistent: remote(151, '0.7.3', { domain }, bool, high),
  /** Whether the configuration differs from what runs. */
  domainIsUpdated: remote(202, '0.8.6', { domain }, bool, high),
  domainGetOsType: remote(19, '0.0.3', { domain }, text, high),
  /** As the DHCP server or the guest agent knows it. */
  domainGetHostname: remote(277, '0.10.0', { domain, flags: flags({ lease: 1, agent: 2 }) }, text),
  /** Whether a call can reach the hypervisor now, and for how many milliseconds it has been so. */
  domainGetControlInfo: remote(
    229,
    '0.9.3',
    { domain, flags: noFlags },
    struct({ state: named({ ok: 0, job: 1, occupied: 2, error: 3 }, u32), details: named({ none: 0, unknownError: 1, monitor: 2, internal: 3 }, u32), stateTimeMs: u64Number }),
    high,
  ),
  domainGetAutostart: remote(15, '0.2.1', { domain }, bool, high),
  domainSetAutostart: remote(29, '0.2.1', { domain, autostart: bool }, nothing, high),
  /** Whether the domain starts with the node's next start, once. */
  domainGetAutostartOnce: remote(449, '11.2.0', { domain }, bool, high),
  domainSetAutostartOnce: remote(450, '11.2.0', { domain, autostart: bool }, nothing, high),
  /** `uri` names the element when `kind` is `element`. Error 80 (isNoMetadata) when there is none. */
  domainGetMetadata: remote(265, '0.9.10', { domain, kind: choice(metadataKinds, 'element'), uri: textOptional, flags: affect }, text),
  /** Without `metadata`, removes it. `key` is the prefix under which an element is put. */
  domainSetMetadata: remote(
    264,
    '0.9.10',
    { domain, kind: choice(metadataKinds, 'element'), metadata: textOptional, key: textOptional, uri: textOptional, flags: affect },
    nothing,
  ),
  /** Warnings that libvirt keeps about a domain: what is deprecated, what taints it, and (since 11.1.0) errors of its disks. */
  domainGetMessages: remote(426, '7.1.0', { domain, kinds: flags({ deprecation: 1, tainting: 2, ioErrors: 4 }) }, array(text, 2_048)),
  /** Addresses as the DHCP server (`lease`), the guest agent or the ARP table knows them. */
  domainInterfaceAddresses: remote(353, '1.2.14', { domain, source: addressSource, flags: noFlags }, interfaceAddresses),
  domainGetSecurityLabelList: remote(
    278,
    '0.10.0',
    { domain },
    only('labels', { labels: array(struct({ label: charsText, enforcing: bool }), 64), count: countOf('labels') }),
    high,
  ),

  domainDefineXmlFlags: remote(350, '1.2.12', { xml: text, flags: flags({ validate: 1 }) }, domain, high),
  /** The events RESUMED and STARTED arrive before this call's reply. Of the result only `id` is the daemon's; name and UUID are those it was given. */
  domainCreateWithFlags: remote(196, '0.8.2', { domain, flags: startFlags }, domain),
  /** Starts a transient domain: it is gone when it stops. */
  domainCreateXml: remote(10, '0.5.0', { xml: text, flags: startFlags }, domain),
  domainUndefineFlags: remote(
    231,
    '0.9.4',
    { domain, flags: flags({ managedSave: 1, snapshotsMetadata: 2, nvram: 4, keepNvram: 8, checkpointsMetadata: 16, tpm: 32, keepTpm: 64 }) },
    nothing,
    high,
  ),
  domainRename: remote(358, '1.2.19', { domain, name: textOptional, flags: noFlags }, only('result', { result: i32 })),
  /** Asks the guest; it may take its time or ignore it. */
  domainShutdownFlags: remote(258, '0.9.10', { domain, modes: shutdownModes }, nothing),
  domainReboot: remote(27, '0.1.0', { domain, modes: shutdownModes }, nothing),
  domainReset: remote(245, '0.9.7', { domain, flags: noFlags }, nothing),
  domainSuspend: remote(34, '0.0.3', { domain }, nothing),
  domainResume: remote(28, '0.0.3', { domain }, nothing),
  /** `graceful` gives up rather than use SIGKILL. */
  domainDestroyFlags: remote(234, '0.9.4', { domain, flags: flags({ graceful: 1, removeLogs: 2 }) }, nothing, high),
  /** Through the guest agent. `seconds` must be 0: no driver can wake it later. */
  domainPmSuspendForDuration: remote(261, '0.9.10', { domain, target: choice({ memory: 0, disk: 1, hybrid: 2 }, 'memory', u32), seconds: defaulted(u64Number, 0), flags: noFlags }, nothing),
  domainPmWakeup: remote(267, '0.9.11', { domain, flags: noFlags }, nothing),
  domainInjectNmi: remote(210, '0.9.2', { domain, flags: noFlags }, nothing),
  /** Presses all keys at once for so many milliseconds. Their numbers are those of the code set; 16 at most. */
  domainSendKey: remote(
    226,
    '0.9.3',
    {
      domain,
      codeSet: choice({ linux: 0, xt: 1, atset1: 2, atset2: 3, atset3: 4, osx: 5, xtKbd: 6, usb: 7, win32: 8, qnum: 9 }, 'linux', u32),
      holdMs: defaulted(u32, 0),
      keys: array(u32, 16),
      flags: noFlags,
    },
    nothing,
  ),
  /** A signal to a process inside a container. */
  domainSendProcessSignal: remote(295, '1.0.1', { domain, pid: i64Number, signal: u32, flags: noFlags }, nothing),
  /** What becomes of a domain when its guest ends so. */
  domainSetLifecycleAction: remote(
    390,
    '3.9.0',
    {
      domain,
      event: named({ poweroff: 0, reboot: 1, crash: 2 }, u32),
      action: named({ destroy: 0, restart: 1, restartRename: 2, preserve: 3, coredumpDestroy: 4, coredumpRestart: 5, preserveRunning: 6 }, u32),
      flags: affect,
    },
    nothing,
  ),
  /** Writes the guest's memory to a file of the node. */
  domainCoreDumpWithFormat: remote(
    334,
    '1.2.3',
    {
      domain,
      to: text,
      format: choice({ raw: 0, kdumpZlib: 1, kdumpLzo: 2, kdumpSnappy: 3, windows: 4 }, 'raw', u32),
      flags: flags({ crash: 1, live: 2, bypassCache: 4, reset: 8, memoryOnly: 16 }),
    },
    nothing,
  ),

  domainManagedSave: remote(182, '0.8.0', { domain, flags: saveFlags }, nothing),
  domainHasManagedSaveImage: remote(183, '0.8.0', { domain, flags: noFlags }, bool),
  domainManagedSaveRemove: remote(184, '0.8.0', { domain, flags: noFlags }, nothing),
  domainManagedSaveGetXmlDesc: remote(388, '3.7.0', { domain, flags: flags({ secure: 1 }) }, text),
  domainManagedSaveDefineXml: remote(389, '3.7.0', { domain, xml: textOptional, flags: saveFlags }, nothing),
  /** Saves memory and state to a file of the node, and stops. */
  domainSaveFlags: remote(232, '0.9.4', { domain, to: text, xml: textOptional, flags: saveFlags }, nothing),
  domainRestoreFlags: remote(233, '0.9.4', { from: text, xml: textOptional, flags: saveFlags }, nothing),
  domainSaveParams: remote(440, '8.4.0', { domain, parameters: parameters.saveParameters, flags: saveFlags }, nothing),
  domainRestoreParams: remote(441, '8.4.0', { parameters: parameters.saveParameters, flags: saveFlags }, nothing),
  domainSaveImageGetXmlDesc: remote(235, '0.9.4', { file: text, flags: flags({ secure: 1 }) }, text, high),
  domainSaveImageDefineXml: remote(236, '0.9.4', { file: text, xml: text, flags: saveFlags }, nothing, high),

  domainGetLaunchSecurityInfo: remote(396, '4.5.0', { domain, flags: noFlags }, parameters.launchSecurityInfo),
  domainSetLaunchSecurityState: remote(439, '8.0.0', { domain, parameters: parameters.launchSecurityState, flags: noFlags }, nothing),

  /** The console `device` (an alias such as `serial0`), else the first. `force` takes it from another client. */
  domainOpenConsole: remote(201, '0.8.6', { domain, device: textOptional, flags: flags({ force: 1, safe: 2 }) }, nothing, { stream: 'both' }),
  /** The virtio channel with that target name (or alias), else the first. */
  domainOpenChannel: remote(296, '1.0.2', { domain, name: textOptional, flags: flags({ force: 1 }) }, nothing, { stream: 'both' }),
  /** Has the VNC server read its certificates again. */
  domainGraphicsReload: remote(448, '10.2.0', { domain, kind: choice({ any: 0, vnc: 1 }, 'any', u32), flags: noFlags }, nothing),
  /** A picture of the screen; `answer` of the stream is its media type. */
  domainScreenshot: remote(211, '0.9.2', { domain, screen: defaulted(u32, 0), flags: noFlags }, textOptional, { stream: 'down' }),
} as const;
