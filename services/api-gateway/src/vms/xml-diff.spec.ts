import { describe, expect, it } from 'vitest';
import { xmlDiff } from './xml-diff.ts';

describe('A difference of XML', () => {
  it('is nothing between the same', () => expect(xmlDiff('<a><b/></a>', '<a><b/></a>')).toBe(''));
  it('is what goes and what comes, with what stands beside it, at its depth', () => {
    expect(xmlDiff('<d><a/><b/><c/><e><f>1</f></e><g/></d>', '<d><a/><b/><c/><e><f>2</f><h/></e><g/></d>')).toBe('   <c/>\n   <e>\n-    <f>1</f>\n+    <f>2</f>\n+    <h/>\n   </e>\n   <g/>\n');
  });
});
