/* Links in documents: where they lead, and whether there is something. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

export interface Link {
  readonly file: string;
  readonly line: number;
  /** As written: relative to the file, perhaps with #heading. */
  readonly target: string;
}

/** Relative links of a Markdown text; none that stand in code. */
export function linksIn(file: string, text: string): readonly Link[] {
  let fenced = false;
  return text.split('\n').flatMap((raw, index) => {
    if (/^\s*```/.test(raw)) fenced = !fenced;
    if (fenced) return [];
    // A link's own text may be code; what is code besides may look like a link.
    const line = raw.replace(/`[^`]*`/g, (code) => code.replace(/[[\]()]/g, '_'));
    return [...line.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => ({ file, line: index + 1, target })).filter(({ target }) => !/^[a-z]+:/.test(target));
  });
}

/** How GitHub names a heading's anchor. */
export const anchorOf = (heading: string): string => heading.trim().toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-');

export const anchorsIn = (text: string): readonly string[] =>
  text.replace(/^```[\s\S]*?^```/gm, '').split('\n').flatMap((line) => /^#{1,6} (.+)$/.exec(line)?.[1] ?? []).map(anchorOf);

/** Links that lead nowhere, as sentences. `root` is where the repository lies; files are relative to it. */
export function judgeLinks(links: readonly Link[], root: string): readonly string[] {
  return links.flatMap(({ file, line, target }) => {
    const [path = '', anchor] = target.split('#');
    const wanted = path === '' ? file : normalize(join(dirname(file), decodeURIComponent(path)));
    const where = `${file}:${line}`;
    if (wanted.startsWith('..') || path.startsWith('/')) return [`${where}: ${target} leads out of the repository`];
    if (!existsSync(join(root, wanted))) return [`${where}: ${target} leads to ${wanted}, which does not exist`];
    if (anchor === undefined || !wanted.endsWith('.md') || statSync(join(root, wanted)).isDirectory()) return [];
    return anchorsIn(readFileSync(join(root, wanted), 'utf8')).includes(anchor) ? [] : [`${where}: ${wanted} has no heading for #${anchor}`];
  });
}
