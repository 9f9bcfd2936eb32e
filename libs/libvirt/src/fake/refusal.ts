/*
 * How the daemon says no: libvirt's number, the part of it that speaks, and its words. Each number has
 * words of its own before those of the case.
 */
import { errorCodes } from '../errors.ts';

/** virErrorDomain, as far as the fake speaks for these parts. */
export const speakers = { none: 0, domain: 6, rpc: 7, qemu: 10, storage: 18, network: 19, domainConfiguration: 20, nodeDevice: 22, secret: 30, filter: 33, snapshot: 35, streams: 38, checkpoint: 69 } as const;
export type Speaker = keyof typeof speakers;

export class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly code: number;
  readonly speaker: Speaker;

  constructor(code: number, speaker: Speaker, message: string) {
    super(message);
    this.code = code;
    this.speaker = speaker;
  }
}

const of =
  (code: number, speaker: Speaker, prefix: string) =>
  (why: string, by: Speaker = speaker): Refusal =>
    new Refusal(code, by, `${prefix}${why}`);

export const internal = of(errorCodes.internal, 'qemu', 'internal error: ');
export const notSupported = of(errorCodes.noSupport, 'domain', 'this function is not supported by the connection driver: ');
export const invalidArgument = of(errorCodes.invalidArgument, 'qemu', 'invalid argument: ');
/** In libvirt's own words, which have no others before them. */
export const unsupportedFlags = (which: string, call: string): Refusal => new Refusal(errorCodes.invalidArgument, 'qemu', `unsupported flags (${which}) in function ${call}`);
/** VIR_ERR_ARGUMENT_UNSUPPORTED. */
export const argumentUnsupported = of(74, 'qemu', 'argument unsupported: ');
export const operationInvalid = of(errorCodes.operationInvalid, 'qemu', 'Requested operation is not valid: ');
export const operationFailed = of(errorCodes.operationFailed, 'qemu', 'operation failed: ');
export const operationUnsupported = of(errorCodes.operationUnsupported, 'qemu', 'Operation not supported: ');
export const configUnsupported = of(errorCodes.configUnsupported, 'qemu', 'unsupported configuration: ');
export const operationTimeout = of(errorCodes.operationTimeout, 'qemu', 'Timed out during operation: ');
export const operationAborted = of(errorCodes.operationAborted, 'qemu', 'operation aborted: ');
export const xmlWrong = of(errorCodes.xml, 'domainConfiguration', 'XML error: ');
export const xmlSyntax = of(errorCodes.xmlSyntax, 'domainConfiguration', '');
export const systemError = of(errorCodes.systemError, 'qemu', '');
export const noDomain = of(errorCodes.noDomain, 'qemu', 'Domain not found: ');
export const noDevice = of(errorCodes.deviceMissing, 'qemu', 'device not found: ');
export const noMetadata = of(errorCodes.noMetadata, 'qemu', 'metadata not found: ');
export const agentUnresponsive = of(errorCodes.agentUnresponsive, 'qemu', 'Guest agent is not responding: ');
export const noSnapshot = of(errorCodes.noDomainSnapshot, 'qemu', 'Domain snapshot not found: ');
export const noCheckpoint = of(errorCodes.noDomainCheckpoint, 'qemu', 'Domain checkpoint not found: ');
/** VIR_ERR_NO_DOMAIN_BACKUP. */
export const noBackup = of(104, 'qemu', 'Domain backup job id not found: ');
export const noNetwork = of(errorCodes.noNetwork, 'network', 'Network not found: ');
export const noPool = of(errorCodes.noStoragePool, 'storage', 'Storage pool not found: ');
export const noVolume = of(errorCodes.noStorageVolume, 'storage', 'Storage volume not found: ');
export const volumeExists = of(errorCodes.storageVolumeExists, 'storage', 'storage volume exists already: ');
export const noSecret = of(errorCodes.noSecret, 'secret', 'Secret not found: ');
export const blockCopyActive = of(errorCodes.blockCopyActive, 'qemu', 'block copy still active: ');
export const rpcRefused = of(errorCodes.rpc, 'rpc', '');
