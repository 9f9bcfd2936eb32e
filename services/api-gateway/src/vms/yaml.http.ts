/*
 * YAML as requests bring it. The package yaml, because it says where a text is wrong, expands no more than a
 * hundred aliases, needs no other package and is well kept.
 */
import { parseDocument } from 'yaml';
import type { Parsed } from './cloud-init.ts';

export function parseYaml(text: string): Parsed {
  const document = parseDocument(text, { logLevel: 'silent' });
  const [error] = document.errors;
  if (error !== undefined) return { wrong: `is no YAML: ${(error.message.split('\n')[0] ?? '').replace(/:$/, '')}` };
  try {
    return { value: document.toJS({ maxAliasCount: 100 }) as unknown };
  } catch (fault) {
    return { wrong: `is no YAML that can be read: ${fault instanceof Error ? fault.message : String(fault)}` };
  }
}
