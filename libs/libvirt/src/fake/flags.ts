/*
 * Flags that have a name and are refused: those that libvirt 9.0.0's QEMU driver does not take in that call, some of which came
 * later, and those that a fake cannot honour. A flag that is ignored would be a promise. Bits without any name are refused
 * before (daemon.ts).
 */
import type { Procedure, Procedures, sessionProcedures } from '../procedures.ts';
import type { Decoded } from '../xdr.ts';

type All = Procedures & typeof sessionProcedures;
type Args<P> = P extends Procedure<infer A> ? Decoded<A> : never;
/** The names of the words of flags, each in its list. */
type WordsOf<A> = { readonly [K in Extract<keyof A, 'flags' | 'filter' | 'modes' | 'kinds'>]?: A[K] extends readonly (infer W)[] ? readonly W[] : never };

const shutdownModes = ['initctl', 'signal', 'paravirt'] as const;
const poolBuild = ['buildOverwrite', 'buildNoOverwrite'] as const;
/** A fake's migration carries nothing, so whatever is said about how to carry it is as good as done. Not these. */
const migration = ['tunnelled', 'postcopyResume'] as const;

const vcpus = ['guest', 'hotpluggable', 'asyncUnplug'] as const;

const refused: { readonly [N in keyof All]?: WordsOf<Args<All[N]>> } = {
  connectGetAllDomainStats: { flags: ['backing'] },
  connectGetDomainCapabilities: { flags: ['disableDeprecatedFeatures', 'expandCpuFeatures', 'supportedCpuFeatures'] },
  connectListAllNodeDevices: { filter: ['ccwgroupDevice', 'ccwgroupMember', 'persistent', 'transient'] },
  nodeDeviceGetXmlDesc: { flags: ['inactive'] },
  domainGetXmlDesc: { flags: ['updateCpu', 'migratable'] },
  domainGetMessages: { kinds: ['ioErrors'] },
  domainCreateWithFlags: { flags: ['validate'] },
  domainCreateXml: { flags: ['bypassCache', 'forceBoot'] },
  domainManagedSave: { flags: ['resetNvram'] },
  domainSaveFlags: { flags: ['resetNvram'] },
  domainShutdownFlags: { modes: shutdownModes },
  domainReboot: { modes: shutdownModes },
  domainAttachDeviceFlags: { flags: ['force'] },
  domainDetachDeviceFlags: { flags: ['force'] },
  domainSetVcpusFlags: { flags: vcpus },
  domainGetVcpusFlags: { flags: vcpus },
  domainBlockCommit: { flags: ['delete', 'relative'] },
  domainBlockRebase: { flags: ['relative', 'copyDevice'] },
  domainBlockCopy: { flags: ['targetZeroed'] },
  domainBlockResize: { flags: ['capacity', 'extend'] },
  domainCheckpointCreateXml: { flags: ['redefineValidate'] },
  domainCheckpointGetXmlDesc: { flags: ['size'] },
  domainBackupBegin: { flags: ['preserveShutdownDomain'] },
  domainGetGuestInfo: { kinds: ['disks', 'load'] },
  domainMigrateBegin3Params: { flags: migration },
  domainMigratePrepare3Params: { flags: migration },
  domainMigratePerform3Params: { flags: migration },
  domainMigrateFinish3Params: { flags: migration },
  domainMigrateConfirm3Params: { flags: migration },
  domainMigrateGetMaxSpeed: { flags: ['postcopy'] },
  domainMigrateSetMaxSpeed: { flags: ['postcopy'] },
  connectDomainMonitorEventRegister: { flags: ['regex', 'ignoreCase'] },
  storagePoolCreateXml: { flags: poolBuild },
  storagePoolCreate: { flags: poolBuild },
  storagePoolBuild: { flags: ['repair', 'resize', 'noOverwrite', 'overwrite'] },
  storagePoolDelete: { flags: ['zeroed'] },
  storageVolCreateXml: { flags: ['reflink'] },
  storageVolDelete: { flags: ['zeroed', 'withSnapshots'] },
};

/** The words of a call's flags for which it is to be refused. */
export function notHonoured(name: string, args: unknown): readonly string[] {
  const words = Object.hasOwn(refused, name) ? (refused as Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>)[name] : undefined;
  if (words === undefined) return [];
  return Object.entries(words).flatMap(([member, list]) => (args as Readonly<Record<string, readonly string[]>>)[member]?.filter((word) => list.includes(word)) ?? []);
}
