/*
 * Chance from a seed. The generator is xoshiro128** (Blackman and Vigna, 2018) on 32-bit words; its state is
 * spread from the seed with splitmix32, so that neighbouring seeds have nothing in common. The same seed
 * gives the same numbers on every machine, because only integer operations of ECMAScript are used.
 */
export class Random {
  private a: number;
  private b: number;
  private c: number;
  private d: number;

  /** `seed`: any integer; its low 32 bits count. */
  constructor(seed: number) {
    let state = seed | 0;
    const spread = (): number => {
      state = (state + 0x9e3779b9) | 0;
      let word = state ^ (state >>> 16);
      word = Math.imul(word, 0x21f0aaad);
      word ^= word >>> 15;
      word = Math.imul(word, 0x735a2d97);
      return (word ^ (word >>> 15)) >>> 0;
    };
    this.a = spread();
    this.b = spread();
    this.c = spread();
    this.d = spread() | 1; // never all zero
  }

  /** 0 to 2^32 − 1. */
  word(): number {
    const product = Math.imul(this.b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const shifted = this.b << 9;
    this.c ^= this.a;
    this.d ^= this.b;
    this.b ^= this.c;
    this.a ^= this.d;
    this.c ^= shifted;
    this.d = (this.d << 11) | (this.d >>> 21);
    return result;
  }

  /** 0 to below 1. */
  fraction(): number {
    return this.word() / 4_294_967_296;
  }

  /** A whole number, both ends included. */
  between(least: number, most: number): number {
    return least + Math.floor(this.fraction() * (most - least + 1));
  }

  chance(probability: number): boolean {
    // Nothing is drawn for what never happens: switching a fault off must not be a question of luck.
    return probability > 0 && this.fraction() < probability;
  }

  /** Throws for an empty list. */
  pick<T>(list: readonly T[]): T {
    const picked = list[this.between(0, list.length - 1)];
    if (picked === undefined) throw new RangeError('nothing to pick from');
    return picked;
  }

  /** 32 hexadecimal digits. */
  digits(): string {
    let digits = '';
    for (let i = 0; i < 4; i++) digits += this.word().toString(16).padStart(8, '0');
    return digits;
  }
}
