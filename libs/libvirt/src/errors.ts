/*
 * Two families, which callers treat differently. A LibvirtError is the daemon's answer: it has looked
 * at the call and said no. A CallUnanswered is the lack of one: the call may have happened, may still
 * happen, or (`sent` false) can never happen any more.
 */

/** Why a connection ended. */
export interface CloseReason {
  readonly kind:
    | 'closedByCaller'
    | 'closedByPeer'
    | 'socketError'
    | 'keepaliveTimeout'
    | 'protocolViolation'
    /** The daemon lives and has lost its hypervisor: `message` says how. */
    | 'hypervisorGone'
    /** One side does not take the other's certificate, or its proof of knowing the password. */
    | 'authenticationFailed';
  readonly message: string;
  readonly cause?: unknown;
}

const levels = ['none', 'warning', 'error'] as const;

export interface LibvirtErrorParts {
  /** virErrorNumber. */
  readonly code: number;
  /** virErrorDomain: the part of libvirt that speaks. */
  readonly domain: number;
  readonly level: (typeof levels)[number];
  /** The daemon's words, without ours. */
  readonly reason: string;
  /** The call, such as `domainGetState`. */
  readonly call: string;
  /** The name or UUID that the call was about, if about one thing. */
  readonly object: string | undefined;
}

/** libvirt's words for a number. */
export function errorLevel(level: number): (typeof levels)[number] {
  return levels[level] ?? 'error';
}

/** The daemon's refusal or failure of one call. */
export class LibvirtError extends Error {
  override readonly name: string = 'LibvirtError';
  readonly code: number;
  readonly domain: number;
  readonly level: (typeof levels)[number];
  readonly reason: string;
  readonly call: string;
  readonly object: string | undefined;

  constructor(parts: LibvirtErrorParts) {
    super(`${parts.call}${parts.object === undefined ? '' : ` ${parts.object}`}: ${parts.reason}`);
    this.code = parts.code;
    this.domain = parts.domain;
    this.level = parts.level;
    this.reason = parts.reason;
    this.call = parts.call;
    this.object = parts.object;
  }
}

/** The daemon or its driver does not have this call. */
export class UnsupportedError extends LibvirtError {
  override readonly name = 'UnsupportedError';
}

/** No answer came, or none was waited for. */
export class CallUnanswered extends Error {
  override readonly name: string = 'CallUnanswered';
  readonly call: string;
  /** When false, the call never left and can have no effect. */
  readonly sent: boolean;

  constructor(call: string, sent: boolean, why: string, options?: ErrorOptions) {
    super(`${call}: ${why}`, options);
    this.call = call;
    this.sent = sent;
  }
}

/** The time limit of the call passed. There is no cancel in the protocol: it may still happen. */
export class CallTimeout extends CallUnanswered {
  override readonly name = 'CallTimeout';
}

/** The caller's signal was aborted. `cause` is its reason. */
export class CallAborted extends CallUnanswered {
  override readonly name = 'CallAborted';
}

/** Too many calls wait for a place on the connection. */
export class CallRefused extends CallUnanswered {
  override readonly name = 'CallRefused';
}

/** The connection ended, or there is none. */
export class Disconnected extends CallUnanswered {
  override readonly name = 'Disconnected';
  readonly reason: CloseReason;

  constructor(call: string, sent: boolean, reason: CloseReason) {
    super(call, sent, reason.message, { cause: reason.cause });
    this.reason = reason;
  }
}

/** libvirt's virErrorNumber, as far as people test for it. */
export const errorCodes = {
  internal: 1,
  noMemory: 2,
  noSupport: 3,
  noConnect: 5,
  invalidConnection: 6,
  invalidDomain: 7,
  invalidArgument: 8,
  operationFailed: 9,
  xml: 27,
  domainExists: 28,
  operationDenied: 29,
  xmlSyntax: 35,
  systemError: 38,
  rpc: 39,
  noDomain: 42,
  noNetwork: 43,
  authFailed: 45,
  invalidStoragePool: 46,
  invalidStorageVolume: 47,
  noStoragePool: 49,
  noStorageVolume: 50,
  noNodeDevice: 53,
  operationInvalid: 55,
  invalidSecret: 65,
  noInterface: 57,
  noFilter: 62,
  noSecret: 66,
  configUnsupported: 67,
  operationTimeout: 68,
  noDomainSnapshot: 72,
  argumentUnsupported: 74,
  operationAborted: 78,
  noMetadata: 80,
  migrateUnsafe: 81,
  blockCopyActive: 83,
  operationUnsupported: 84,
  agentUnresponsive: 86,
  resourceBusy: 87,
  accessDenied: 88,
  storageVolumeExists: 90,
  cpuIncompatible: 91,
  agentUnsynced: 97,
  deviceMissing: 99,
  noFilterBinding: 101,
  noDomainCheckpoint: 103,
  noNetworkPort: 107,
  noHostname: 108,
  checkpointInconsistent: 109,
  noNetworkMetadata: 111,
  agentCommandTimeout: 112,
  agentCommandFailed: 113,
} as const;

const has = (error: unknown, ...codes: readonly number[]): error is LibvirtError => error instanceof LibvirtError && codes.includes(error.code);

export const isNoDomain = (error: unknown): error is LibvirtError => has(error, errorCodes.noDomain);
export const isNoNetwork = (error: unknown): error is LibvirtError => has(error, errorCodes.noNetwork);
export const isNoStoragePool = (error: unknown): error is LibvirtError => has(error, errorCodes.noStoragePool);
export const isNoStorageVolume = (error: unknown): error is LibvirtError => has(error, errorCodes.noStorageVolume);
export const isNoSnapshot = (error: unknown): error is LibvirtError => has(error, errorCodes.noDomainSnapshot);
export const isNoCheckpoint = (error: unknown): error is LibvirtError => has(error, errorCodes.noDomainCheckpoint);
export const isNoSecret = (error: unknown): error is LibvirtError => has(error, errorCodes.noSecret);
export const isNoNodeDevice = (error: unknown): error is LibvirtError => has(error, errorCodes.noNodeDevice);
/** The disk or interface that was named is not one of the domain's. */
export const isNoDevice = (error: unknown): error is LibvirtError => has(error, errorCodes.deviceMissing);
export const isNoMetadata = (error: unknown): error is LibvirtError => has(error, errorCodes.noMetadata, errorCodes.noNetworkMetadata);
/** The object is not in a state for this: already running, not running. */
export const isOperationInvalid = (error: unknown): error is LibvirtError => has(error, errorCodes.operationInvalid);
/** The object's lock is held by another call that did not end in time, or it is in use. */
export const isBusy = (error: unknown): error is LibvirtError => has(error, errorCodes.operationTimeout, errorCodes.resourceBusy);
export const isAgentUnresponsive = (error: unknown): error is LibvirtError =>
  has(error, errorCodes.agentUnresponsive, errorCodes.agentUnsynced, errorCodes.agentCommandTimeout);
/** The XML is wrong or asks for what the hypervisor cannot do. */
export const isXmlRefused = (error: unknown): error is LibvirtError => has(error, errorCodes.xml, errorCodes.xmlSyntax, errorCodes.configUnsupported);
export const isAccessDenied = (error: unknown): error is LibvirtError => has(error, errorCodes.authFailed, errorCodes.accessDenied);
/** No call can tell any more what happened: connection lost, time passed. Ask for the state again. */
export const isUnanswered = (error: unknown): error is CallUnanswered => error instanceof CallUnanswered;
