/*
 * A map for states that grow: `with` and `without` answer a new map and leave the old one as it was, like a
 * copied Map, but they copy one bucket out of 256 and not everything. A subnet with 50,000 leases then takes
 * about as long to lease the next one as an empty one does.
 */
const BUCKETS = 256;

type Key = string | number;

/** The last two characters of an id are random; neighbouring addresses differ in their low bits. */
const bucketOf = (key: Key): number => {
  if (typeof key === 'number') return key % BUCKETS;
  const length = key.length;
  return ((key.charCodeAt(length - 1) || 0) * 31 + (key.charCodeAt(length - 2) || 0)) % BUCKETS;
};

export class BucketMap<K extends Key, V> {
  readonly size: number;
  private readonly buckets: readonly (ReadonlyMap<K, V> | undefined)[];

  private constructor(buckets: readonly (ReadonlyMap<K, V> | undefined)[], size: number) {
    this.buckets = buckets;
    this.size = size;
  }

  static empty<K extends Key, V>(): BucketMap<K, V> {
    return new BucketMap<K, V>(new Array<undefined>(BUCKETS).fill(undefined), 0);
  }

  get(key: K): V | undefined {
    return this.buckets[bucketOf(key)]?.get(key);
  }

  has(key: K): boolean {
    return this.buckets[bucketOf(key)]?.has(key) === true;
  }

  with(key: K, value: V): BucketMap<K, V> {
    const bucket = new Map(this.buckets[bucketOf(key)]);
    const grown = bucket.has(key) ? 0 : 1;
    bucket.set(key, value);
    return new BucketMap(this.buckets.with(bucketOf(key), bucket), this.size + grown);
  }

  without(key: K): BucketMap<K, V> {
    if (!this.has(key)) return this;
    const bucket = new Map(this.buckets[bucketOf(key)]);
    bucket.delete(key);
    return new BucketMap(this.buckets.with(bucketOf(key), bucket), this.size - 1);
  }

  /** A few of the keys, in no order that means anything. */
  someKeys(max: number): readonly K[] {
    const keys: K[] = [];
    for (const [key] of this.entries()) {
      if (keys.length >= max) break;
      keys.push(key);
    }
    return keys;
  }

  *entries(): Generator<readonly [K, V]> {
    for (const bucket of this.buckets) if (bucket !== undefined) yield* bucket;
  }
}
