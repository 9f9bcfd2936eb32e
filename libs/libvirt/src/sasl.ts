/*
 * SASL, the client's side: PLAIN (RFC 4616) and SCRAM (RFC 5802; with SHA-256, RFC 7677).
 *
 *   client                          server
 *     ── first message ──────────────▶       PLAIN: all there is. SCRAM: our name and nonce.
 *     ◀───────────── challenge ──────        SCRAM: both nonces, salt, iterations.
 *     ── proof ──────────────────────▶       That we know the password; it is not in it.
 *     ◀───────────── signature ──────        That the server knows it too. We insist.
 *
 * SCRAM tells an eavesdropper nothing that helps but to guess passwords, PLAIN tells him the password.
 * So PLAIN is spoken only where nobody listens, or where the caller says that it may be. The strongest
 * mechanism on offer is taken. Channel binding is not spoken: libvirtd does not offer it.
 */
import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';

const hashOf = { 'SCRAM-SHA-512': 'sha512', 'SCRAM-SHA-256': 'sha256', 'SCRAM-SHA-1': 'sha1' } as const;
type ScramMechanism = keyof typeof hashOf;
export type SaslMechanism = ScramMechanism | 'PLAIN';

/** The strongest first. */
export const saslMechanisms: readonly SaslMechanism[] = ['SCRAM-SHA-512', 'SCRAM-SHA-256', 'SCRAM-SHA-1', 'PLAIN'];

/** RFC 7677 asks for at least so many: fewer are a server that is careless with its users' passwords, or none. */
const iterationsMin = 4_096;
/** What a server can make us compute: about a second. */
const iterationsMax = 2_000_000;
/** Far more than any server's message has. */
const messageBytesMax = 16_384;

export interface Credentials {
  readonly username: string;
  readonly password: string;
  /** To act as somebody else, if the server allows it. */
  readonly actingAs?: string;
}

/** The exchange cannot go on. Never contains a password. */
export class SaslError extends Error {
  override readonly name = 'SaslError';
}

export interface SaslExchange {
  readonly mechanism: SaslMechanism;
  /** What to say first. */
  readonly first: Buffer;
  /** What to say to this, or undefined when there is nothing more to say. Throws SaslError. */
  answer(challenge: Buffer): Promise<Buffer | undefined>;
  /** Whether the server has shown all that it must. A success before that is none. */
  readonly satisfied: boolean;
}

export interface MechanismChoice {
  readonly offered: readonly string[];
  /** Those the caller wants to speak. */
  readonly wanted: readonly SaslMechanism[];
  /** Whether a password may be sent as it is. */
  readonly plainAllowed: boolean;
}

/** Throws SaslError, which says what was on offer, when there is none in common. */
export function chooseMechanism({ offered, wanted, plainAllowed }: MechanismChoice): SaslMechanism {
  const common = saslMechanisms.filter((mechanism) => wanted.includes(mechanism) && offered.includes(mechanism));
  const chosen = common.find((mechanism) => mechanism !== 'PLAIN' || plainAllowed);
  if (chosen !== undefined) return chosen;
  const list = offered.map((mechanism) => mechanism.replaceAll(/[^\w-]/g, '?').slice(0, 20)).slice(0, 20).join(', ');
  throw new SaslError(
    common.length > 0
      ? 'libvirtd takes only PLAIN, which would send the password where others may read it'
      : `libvirtd offers ${list === '' ? 'no SASL mechanism' : `the SASL mechanisms ${list}`}; this client may speak ${wanted.join(', ')}`,
  );
}

/** `nonce` is for tests that repeat a written example. */
export function startSasl(mechanism: SaslMechanism, credentials: Credentials, nonce: string = randomBytes(24).toString('base64')): SaslExchange {
  return mechanism === 'PLAIN' ? plain(credentials) : scram(mechanism, credentials, nonce);
}

function plain({ username, password, actingAs = '' }: Credentials): SaslExchange {
  if (username === '' || [username, password, actingAs].some((word) => word.includes('\0'))) throw new SaslError('a name is needed, and neither it nor the password may contain a zero byte');
  return {
    mechanism: 'PLAIN',
    first: Buffer.from(`${actingAs}\0${username}\0${password}`),
    satisfied: true,
    // Some servers ask for nothing more in so many words.
    answer: (challenge) => (challenge.length === 0 ? Promise.resolve(undefined) : Promise.reject(new SaslError('the server answered PLAIN with a question'))),
  };
}

class Scram implements SaslExchange {
  readonly mechanism: ScramMechanism;
  readonly first: Buffer;
  readonly #password: string;
  readonly #nonce: string;
  readonly #gs2: string;
  readonly #firstBare: string;
  /** What the server must say to have shown that it knows the password. */
  #signature: Buffer | undefined;
  #satisfied = false;

  constructor(mechanism: ScramMechanism, { username, password, actingAs }: Credentials, nonce: string) {
    const name = prepared(username);
    if (name === '') throw new SaslError('a name is needed');
    this.mechanism = mechanism;
    this.#password = prepared(password);
    this.#nonce = nonce;
    this.#gs2 = `n,${actingAs === undefined ? '' : `a=${escaped(prepared(actingAs))}`},`;
    this.#firstBare = `n=${escaped(name)},r=${nonce}`;
    this.first = Buffer.from(this.#gs2 + this.#firstBare);
  }

  get satisfied(): boolean {
    return this.#satisfied;
  }

  async answer(challenge: Buffer): Promise<Buffer | undefined> {
    if (challenge.length > messageBytesMax) throw new SaslError(`the server sent a message of ${challenge.length} bytes`);
    if (this.#satisfied) {
      if (challenge.length === 0) return undefined;
      throw new SaslError('the server goes on after its signature');
    }
    if (this.#signature === undefined) return this.#prove(challenge.toString());
    this.#check(challenge.toString(), this.#signature);
    // An empty word, for servers that cannot say a signature and their success at once.
    return Buffer.alloc(0);
  }

  async #prove(challenge: string): Promise<Buffer> {
    const fields = fieldsOf(challenge);
    // An attribute of this name changes the meaning of the others.
    if (fields.has('m')) throw new SaslError('the server wants an extension that is unknown');
    const [nonce, salt, iterations] = [fields.get('r'), fields.get('s'), fields.get('i')];
    if (nonce === undefined || salt === undefined || iterations === undefined || !/^\d{1,9}$/.test(iterations)) throw new SaslError('the server’s challenge is not one of SCRAM');
    if (!nonce.startsWith(this.#nonce) || nonce.length === this.#nonce.length) throw new SaslError('the server’s nonce does not continue ours');
    const count = Number(iterations);
    if (count < iterationsMin || count > iterationsMax) throw new SaslError(`the server wants ${count} iterations; ${iterationsMin} to ${iterationsMax} are taken`);
    const saltBytes = Buffer.from(salt, 'base64');
    if (saltBytes.length === 0) throw new SaslError('the server’s salt is empty');

    const hash = hashOf[this.mechanism];
    const mac = (key: Buffer, text: string) => createHmac(hash, key).update(text).digest();
    const salted = await promisify(pbkdf2)(this.#password, saltBytes, count, createHash(hash).digest().length, hash);
    const clientKey = mac(salted, 'Client Key');
    const withoutProof = `c=${Buffer.from(this.#gs2).toString('base64')},r=${nonce}`;
    const said = `${this.#firstBare},${challenge},${withoutProof}`;
    const clientSignature = mac(createHash(hash).update(clientKey).digest(), said);
    const proof = Buffer.from(clientKey.map((byte, index) => byte ^ (clientSignature[index] as number)));
    this.#signature = mac(mac(salted, 'Server Key'), said);
    return Buffer.from(`${withoutProof},p=${proof.toString('base64')}`);
  }

  #check(last: string, expected: Buffer): void {
    const fields = fieldsOf(last);
    const error = fields.get('e');
    if (error !== undefined) throw new SaslError(`the server refuses: ${error.replaceAll(/[^\w -]/g, '?').slice(0, 60)}`);
    const signature = Buffer.from(fields.get('v') ?? '', 'base64');
    if (signature.length !== expected.length || !timingSafeEqual(signature, expected)) throw new SaslError('the server did not show that it knows the password');
    this.#satisfied = true;
  }
}

const scram = (mechanism: ScramMechanism, credentials: Credentials, nonce: string): SaslExchange => new Scram(mechanism, credentials, nonce);

/** `a=1,b=2`. The first of a name counts. */
function fieldsOf(message: string): ReadonlyMap<string, string> {
  const fields = new Map<string, string>();
  for (const part of message.split(',')) {
    const at = part.indexOf('=');
    if (at === 1 && !fields.has(part.slice(0, 1))) fields.set(part.slice(0, 1), part.slice(2));
  }
  return fields;
}

const escaped = (name: string): string => name.replaceAll('=', '=3D').replaceAll(',', '=2C');

/**
 * SASLprep (RFC 4013): spaces of all kinds become one, what is invisible goes, and the rest is put into
 * one form, so that the same password typed on two keyboards is the same. Its rule about writing from
 * right to left is not checked: it refuses texts and changes none.
 */
export function prepared(text: string): string {
  const visible = text.replaceAll(/[\u00AD\u034F\u1806\u180B-\u180D\u200B-\u200D\u2060\uFE00-\uFE0F\uFEFF]/g, '').replaceAll(/[\u00A0\u1680\u2000-\u200A\u202F\u205F\u3000]/g, ' ');
  const normal = visible.normalize('NFKC');
  if (/[\p{Cc}\p{Co}\p{Cs}\uFFF9-\uFFFD\u2FF0-\u2FFB\u0340\u0341\u200E\u200F\u2028-\u202E\u206A-\u206F\u{E0001}\u{E0020}-\u{E007F}]|\p{Noncharacter_Code_Point}/u.test(normal)) {
    throw new SaslError('a name or password contains a character that SASL forbids');
  }
  return normal;
}
