/*
 * What cloud-init would not understand, said before a machine is made of it: in a guest the only sign would
 * be that nothing happens. Only the form is looked at; which keys there may be differs by its version.
 */
import type { CloudInit } from '@chronovirt/contracts/vm/cloud-init';
import type { BadField } from '../problem.ts';

/** What a YAML text holds, or what is wrong with it. */
export type Parsed = { readonly value: unknown } | { readonly wrong: string };
type Parse = (text: string) => Parsed;

const isMapping = (value: unknown): value is Readonly<Record<string, unknown>> => typeof value === 'object' && value !== null && !Array.isArray(value);

function userDataWrong(text: string, parse: Parse): string | undefined {
  // Scripts, archives and templates are read by whoever runs them.
  if (!text.startsWith('#cloud-config')) return undefined;
  const parsed = parse(text);
  if ('wrong' in parsed) return parsed.wrong;
  // A file of comments alone asks for nothing.
  return parsed.value === null || isMapping(parsed.value) ? undefined : 'must hold keys and values after #cloud-config';
}

function networkConfigWrong(text: string, parse: Parse): string | undefined {
  const parsed = parse(text);
  if ('wrong' in parsed) return parsed.wrong;
  // cloud-init takes it with and without the key around it.
  const config = isMapping(parsed.value) && isMapping(parsed.value['network']) ? parsed.value['network'] : parsed.value;
  if (!isMapping(config)) return 'must hold keys and values';
  return config['version'] === 1 || config['version'] === 2 ? undefined : 'must say version: 1 or version: 2';
}

/** Every field that cannot be read, by its path in the body. */
export function badCloudInit(cloudInit: Pick<CloudInit, 'userData' | 'networkConfig'> | null | undefined, parse: Parse): readonly BadField[] {
  const wrongs = [['userData', cloudInit?.userData, userDataWrong], ['networkConfig', cloudInit?.networkConfig, networkConfigWrong]] as const;
  return wrongs.flatMap(([field, text, wrongOf]) => {
    const message = text === undefined ? undefined : wrongOf(text, parse);
    return message === undefined ? [] : [{ path: `body.cloudInit.${field}`, code: 'invalid_format', message }];
  });
}
