/* What is different between two XML texts, line by line, as `diff -u` shows it without its heads. */

const CONTEXT = 2;
/** More is not compared, but told as gone and come: a domain has some hundred. */
const LINES_MAX = 2_000;

/** An element to a line; the texts have no white space between elements. */
const linesOf = (xml: string): readonly string[] => {
  let depth = 0;
  return xml.replaceAll('><', '>\n<').split('\n').map((line) => {
    if (line.startsWith('</')) depth -= 1;
    const shown = `${'  '.repeat(Math.max(0, depth))}${line}`;
    if (!line.startsWith('</') && !line.endsWith('/>') && !line.includes('</')) depth += 1;
    return shown;
  });
};

export function xmlDiff(before: string, after: string): string {
  const [a, b] = [linesOf(before).slice(0, LINES_MAX), linesOf(after).slice(0, LINES_MAX)];
  // Length of the longest common subsequence of what stands behind each pair of lines.
  const common = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  const at = (i: number, j: number): number => common[i]?.[j] ?? 0;
  for (let i = a.length - 1; i >= 0; i--) {
    const row = common[i];
    for (let j = b.length - 1; row !== undefined && j >= 0; j--) row[j] = a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
  }
  const all: { readonly sign: ' ' | '-' | '+'; readonly line: string }[] = [];
  for (let i = 0, j = 0; i < a.length || j < b.length;) {
    if (i < a.length && j < b.length && a[i] === b[j]) { all.push({ sign: ' ', line: a[i++] ?? '' }); j += 1; }
    else if (j >= b.length || (i < a.length && at(i + 1, j) >= at(i, j + 1))) all.push({ sign: '-', line: a[i++] ?? '' });
    else all.push({ sign: '+', line: b[j++] ?? '' });
  }
  const isNear = (index: number): boolean => all.slice(Math.max(0, index - CONTEXT), index + CONTEXT + 1).some(({ sign }) => sign !== ' ');
  return all.flatMap(({ sign, line }, index) => (isNear(index) ? [`${sign}${line}\n`] : [])).join('');
}
