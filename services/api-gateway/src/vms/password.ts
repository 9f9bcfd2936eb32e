/** A password that a machine makes and a person types: letters and digits that nobody takes for others. */

const LETTERS = 'abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789';
/** Of 56 letters each: 116 bits. */
const LENGTH = 20;

/** With a small letter, a capital and a digit, as many systems want it. `below` draws a whole number from 0 to less than its argument, from a source fit for secrets. */
export function madePassword(below: (max: number) => number): string {
  for (;;) {
    const made = Array.from({ length: LENGTH }, () => LETTERS[below(LETTERS.length)]).join('');
    if (/[a-z]/.test(made) && /[A-Z]/.test(made) && /\d/.test(made)) return made;
  }
}
