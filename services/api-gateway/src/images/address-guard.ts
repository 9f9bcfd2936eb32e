/*
 * Where the control plane may fetch an image from: what a user names is asked by us, from inside. So addresses
 * that are not the public Internet's are refused, unless the operator has named their network: the metadata
 * service of a cloud (169.254.169.254), our own Postgres, somebody's router.
 *
 * Source: the special-purpose address registries of IANA (RFC 6890, RFC 8190), and multicast.
 */

type Words = readonly number[];

interface Network {
  readonly words: Words;
  readonly bits: number;
}

/** Eight numbers of 16 bits, of IPv4 too: as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). undefined: not an address. */
const wordsOf = (address: string): Words | undefined => {
  const [plain = ''] = address.split('%');
  const four = /^(?:(.*:))?(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(plain);
  const bytes = four?.slice(2).map(Number) ?? [];
  if (bytes.some((byte) => byte > 255)) return undefined;
  const [a = 0, b = 0, c = 0, d = 0] = bytes;
  if (four !== null && four[1] === undefined) return [0, 0, 0, 0, 0, 0xffff, a * 256 + b, c * 256 + d];
  const text = four === null ? plain : `${four[1] ?? ''}${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
  const [head, tail, more] = text.split('::');
  if (head === undefined || more !== undefined) return undefined;
  const parse = (part: string): Words => (part === '' ? [] : part.split(':').map((word) => (/^[0-9a-fA-F]{1,4}$/.test(word) ? parseInt(word, 16) : NaN)));
  const [left, right] = [parse(head), parse(tail ?? '')];
  const words = tail === undefined ? left : [...left, ...Array.from({ length: Math.max(0, 8 - left.length - right.length) }, () => 0), ...right];
  return words.length === 8 && words.every((word) => !Number.isNaN(word)) ? words : undefined;
};

const networkOf = (cidr: string): Network => {
  const [address = '', bits = ''] = cidr.split('/');
  const words = wordsOf(address);
  if (words === undefined) throw new RangeError(`not a network: ${cidr}`);
  return { words, bits: Number(bits) + (address.includes(':') ? 0 : 96) };
};

const within = (words: Words, network: Network): boolean => words.every((word, index) => {
  const bits = Math.max(0, Math.min(16, network.bits - index * 16));
  return word >> (16 - bits) === (network.words[index] ?? 0) >> (16 - bits);
});

const NOT_PUBLIC = [
  '0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.0.0.0/24', '192.0.2.0/24', '192.88.99.0/24', '192.168.0.0/16', '198.18.0.0/15',
  '198.51.100.0/24', '203.0.113.0/24', '224.0.0.0/4', '240.0.0.0/4',
].map(networkOf);
/** Of IPv6, only global unicast is; and of that not what stands for something else. */
const GLOBAL = networkOf('2000::/3');
const NOT_GLOBAL = ['2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20'].map(networkOf);
const MAPPED = networkOf('::ffff:0:0/96');

/** Whether an image may be fetched from this address. `allowed`: networks that the operator has named. */
export const mayFetchFrom = (address: string, allowed: readonly string[]): boolean => {
  const words = wordsOf(address);
  if (words === undefined) return false;
  if (allowed.some((cidr) => within(words, networkOf(cidr)))) return true;
  if (within(words, MAPPED)) return !NOT_PUBLIC.some((network) => within(words, network));
  return within(words, GLOBAL) && !NOT_GLOBAL.some((network) => within(words, network));
};
