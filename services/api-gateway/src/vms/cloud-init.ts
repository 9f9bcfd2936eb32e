/*
 * What cloud-init would not understand, said before a machine is made of it: in a guest the only sign would
 * be that nothing happens. Only the form is looked at; which keys there may be differs by its version.
 *
 * The package yaml, because it says where a text is wrong, expands no more than a hundred aliases, needs no
 * other package and is well kept.
 */
import type { CloudInit } from '@chronovirt/contracts/vm/cloud-init';
import { parseDocument } from 'yaml';
import type { BadField } from '../problem.ts';

type Parsed = { readonly value: unknown } | { readonly wrong: string };

function parseYaml(text: string): Parsed {
  const document = parseDocument(text, { logLevel: 'silent' });
  const [error] = document.errors;
  if (error !== undefined) return { wrong: `is no YAML: ${(error.message.split('\n')[0] ?? '').replace(/:$/, '')}` };
  try {
    return { value: document.toJS({ maxAliasCount: 100 }) as unknown };
  } catch (fault) {
    return { wrong: `is no YAML that can be read: ${fault instanceof Error ? fault.message : String(fault)}` };
  }
}

const isMapping = (value: unknown): value is Readonly<Record<string, unknown>> => typeof value === 'object' && value !== null && !Array.isArray(value);

function userDataWrong(text: string): string | undefined {
  // Scripts, archives and templates are read by whoever runs them.
  if (!text.startsWith('#cloud-config')) return undefined;
  const parsed = parseYaml(text);
  if ('wrong' in parsed) return parsed.wrong;
  // A file of comments alone asks for nothing.
  return parsed.value === null || isMapping(parsed.value) ? undefined : 'must hold keys and values after #cloud-config';
}

function networkConfigWrong(text: string): string | undefined {
  const parsed = parseYaml(text);
  if ('wrong' in parsed) return parsed.wrong;
  // cloud-init takes it with and without the key around it.
  const config = isMapping(parsed.value) && isMapping(parsed.value['network']) ? parsed.value['network'] : parsed.value;
  if (!isMapping(config)) return 'must hold keys and values';
  return config['version'] === 1 || config['version'] === 2 ? undefined : 'must say version: 1 or version: 2';
}

/** Every field that cannot be read, by its path in the body. */
export function badCloudInit(cloudInit: Pick<CloudInit, 'userData' | 'networkConfig'> | null | undefined): readonly BadField[] {
  const wrongs = [['userData', cloudInit?.userData, userDataWrong], ['networkConfig', cloudInit?.networkConfig, networkConfigWrong]] as const;
  return wrongs.flatMap(([field, text, wrongOf]) => {
    const message = text === undefined ? undefined : wrongOf(text);
    return message === undefined ? [] : [{ path: `body.cloudInit.${field}`, code: 'invalid_format', message }];
  });
}
