/* What differs between two documents, field by field, in the words that a reader of them knows. */

export interface Change {
  readonly was: unknown;
  readonly is: unknown;
}

/** Fields that change with everything and say nothing. */
const incidental = new Set(['version', 'position', 'changedAt']);

type Fields = Readonly<Record<string, unknown>>;
const isObject = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value);

const leaves = (value: unknown, path: string, into: Map<string, unknown>): void => {
  if (!isObject(value)) into.set(path, value ?? null);
  else for (const [key, inner] of Object.entries(value)) if (path !== '' || !incidental.has(key)) leaves(inner, path === '' ? key : `${path}.${key}`, into);
};

const leavesOf = (document: unknown): ReadonlyMap<string, unknown> => {
  const into = new Map<string, unknown>();
  if (document !== undefined) leaves(document, '', into);
  return into;
};

/** By path, such as `spec.tags`; lists are compared as a whole. What is not there is null. */
export const changedBetween = (before: unknown, after: unknown): Readonly<Record<string, Change>> => {
  const [was, is] = [leavesOf(before), leavesOf(after)];
  const paths = [...new Set([...was.keys(), ...is.keys()])];
  return Object.fromEntries(paths.flatMap((path) => {
    const change = { was: was.get(path) ?? null, is: is.get(path) ?? null };
    return JSON.stringify(change.was) === JSON.stringify(change.is) ? [] : [[path, change] as const];
  }));
};
