/*
 * What the manifests in infra/ must be, as functions from their text to a list of complaints, so that
 * manifests.spec.ts can ask them about today's files and about a planted mistake alike.
 *
 * Kubernetes objects are judged twice. Its schemas (kubernetes-models) know types, required fields, enums
 * and patterns, and let unknown fields pass, as the API server does; so a misspelt `readinesProbe` would be
 * no probe. Therefore each object is also written out as a literal of its TypeScript type, where the
 * compiler refuses a field that does not exist.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import ts from 'typescript';
import { parse, parseAllDocuments } from 'yaml';

/** What came out of YAML: nothing is known of it yet. */
export type Loose = Readonly<Record<string, unknown>>;

export interface KubernetesObject extends Loose {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Loose & { readonly name: string; readonly namespace?: string };
}

export interface Found {
  readonly file: string;
  readonly object: KubernetesObject;
}

const isRecord = (value: unknown): value is Loose => typeof value === 'object' && value !== null && !Array.isArray(value);

/** What lies at a path of keys and positions, or undefined. */
export function at(value: unknown, ...path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>((inner, key) => (typeof key === 'number' ? (Array.isArray(inner) ? (inner as unknown[])[key] : undefined) : isRecord(inner) ? inner[key] : undefined), value);
}

export const list = (value: unknown): readonly Loose[] => (Array.isArray(value) ? (value as unknown[]).filter(isRecord) : []);
const strings = (value: unknown): readonly string[] => (Array.isArray(value) ? (value as unknown[]).map(String) : []);

/** YAML 1.1 merge keys (`<<`) included, since docker-compose has them. */
export const readYaml = (text: string): unknown => parse(text, { merge: true, maxAliasCount: 1_000 }) as unknown;

export function kubernetesObjects(folder: string): readonly Found[] {
  return readdirSync(folder).filter((file) => file.endsWith('.yaml') && file !== 'kustomization.yaml').flatMap((file) =>
    parseAllDocuments(readFileSync(join(folder, file), 'utf8'), { strict: true, uniqueKeys: true }).map((document) => {
      const [fault] = document.errors;
      if (fault) throw new Error(`${file}: ${fault.message}`);
      return { file, object: document.toJS() as KubernetesObject };
    }));
}

/** The template of the pods that an object makes, if it makes any. */
export const podOf = ({ kind, spec }: KubernetesObject): Loose | undefined =>
  ['Deployment', 'StatefulSet', 'DaemonSet', 'Job'].includes(kind) ? (at(spec, 'template', 'spec') as Loose) : undefined;

/** Stages of a Dockerfile, by name, with the lines that belong to each. */
export function stagesOf(dockerfile: string): ReadonlyMap<string, readonly string[]> {
  const stages = new Map<string, string[]>();
  let lines: string[] = [];
  for (const line of dockerfile.replaceAll('\\\n', ' ').split('\n')) {
    const name = /^FROM \S+ AS (\S+)$/.exec(line)?.[1];
    if (name !== undefined) stages.set(name, (lines = []));
    lines.push(line);
  }
  return stages;
}

const PINNED = /^[a-z0-9./-]+:(?!latest$)[0-9][A-Za-z0-9._-]*$|@sha256:[0-9a-f]{64}$/;

export const judgeImages = (images: readonly string[]): readonly string[] =>
  images.filter((image) => !PINNED.test(image)).map((image) => `${image}: name one version of the image`);

const SECRET_NAME = /PASSWORD|SECRET|TOKEN|SEED|CREDS|PRIVATE/i;
/** A file's path, a reference to another variable, a digest of nothing secret. */
const HARMLESS = /^(\/|\$\(|\$\{CV_[A-Z_]+(:-[^}]*)?\}\/)/;

/** @param variables names and values of an environment */
export const judgeSecrets = (where: string, variables: Loose): readonly string[] =>
  Object.entries(variables).flatMap(([name, value]) => [
    ...(SECRET_NAME.test(name) && !HARMLESS.test(String(value)) ? [`${where}: ${name} stands in the manifest; put it into a file that only its reader sees`] : []),
    ...(/:\/\/[^/\s:@]+:[^/\s@]+@/.test(String(value)) ? [`${where}: ${name} holds a password`] : []),
  ]);

/** Listening on all addresses is for a gateway in a container of its own, said in so many words. */
export function judgeListening(where: string, text: string): readonly string[] {
  return text.split('\n').flatMap((line, index) =>
    /(^|[^\d.])0\.0\.0\.0([^\d.]|$)|\[::\]/.test(line.replace(/(^|\s)#.*$/, '')) && !/^\s*CV_GATEWAY_HOST: 0\.0\.0\.0$/.test(line)
      ? [`${where}:${index + 1}: listens on all addresses; name the one that is meant`]
      : []);
}

/** What keeps a container from doing more than it must; what is missing, by name. */
export function judgeContainer(where: string, pod: Loose, container: Loose): readonly string[] {
  const missing: string[] = [];
  const need = (what: string, ok: boolean): void => { if (!ok) missing.push(`${where}: ${what}`); };
  const security = at(container, 'securityContext');
  need('readOnlyRootFilesystem', at(security, 'readOnlyRootFilesystem') === true);
  need('memory request and limit', at(container, 'resources', 'requests', 'memory') !== undefined && at(container, 'resources', 'limits', 'memory') !== undefined);
  need('cpu request', at(container, 'resources', 'requests', 'cpu') !== undefined);
  need('automountServiceAccountToken: false', pod['automountServiceAccountToken'] === false);
  if (at(security, 'privileged') === true) return missing;
  need('no privilege escalation', at(security, 'allowPrivilegeEscalation') === false);
  need('no capabilities', strings(at(security, 'capabilities', 'drop')).includes('ALL'));
  need('an ordinary user', at(pod, 'securityContext', 'runAsNonRoot') === true && Number(at(pod, 'securityContext', 'runAsUser')) > 0);
  need('the runtime\'s seccomp profile', at(pod, 'securityContext', 'seccompProfile', 'type') === 'RuntimeDefault');
  return missing;
}

/** Liveness by /livez (a part that only waits is alive), readiness by /readyz. */
export function judgeProbes(where: string, container: Loose): readonly string[] {
  const wanted = { startupProbe: '/livez', livenessProbe: '/livez', readinessProbe: '/readyz' };
  const ports = new Set(list(container['ports']).map(({ name }) => name));
  return Object.entries(wanted).flatMap(([probe, path]) => [
    ...(at(container, probe, 'httpGet', 'path') === path ? [] : [`${where}: ${probe} does not ask ${path}`]),
    ...(ports.has(at(container, probe, 'httpGet', 'port')) ? [] : [`${where}: ${probe} asks a port that the container does not name`]),
  ]);
}

/** Names and plain values of a container's environment; what the cluster fills in stands in its place. */
export function environmentOf(container: Loose): Readonly<Record<string, string>> {
  const filledIn: Readonly<Record<string, string>> = { 'status.podIP': '10.1.2.3', 'metadata.name': 'pod-1', 'spec.nodeName': 'node-1' };
  const values: Record<string, string> = {};
  for (const { name, value, valueFrom } of list(container['env'])) {
    const field = at(valueFrom, 'fieldRef', 'fieldPath');
    const text = typeof value === 'string' ? value : filledIn[String(field)];
    if (text === undefined) throw new Error(`${String(name)} has no value that is known here`);
    // $(NAME) refers to what stands above; what does not is left as it is, and so it is here.
    values[String(name)] = text.replaceAll(/\$\(([A-Z_]+)\)/g, (whole, other: string) => values[other] ?? whole);
  }
  return values;
}

/** docker-compose's ${NAME:-default}, with nothing set outside. */
export const withDefaults = (value: string): string => value.replaceAll(/\$\{[A-Z_]+:-([^}]*)\}/g, '$1');

/** Where the type of a kind lies in kubernetes-models, or undefined for a custom resource. */
export function modelOf({ apiVersion, kind }: KubernetesObject): string | undefined {
  const base = import.meta.resolve('kubernetes-models/v1/Namespace');
  const file = new URL(`../${apiVersion === 'v1' ? 'v1' : apiVersion}/${kind}.js`, base);
  return existsSync(file) ? file.pathname : undefined;
}

/** Complaints of Kubernetes' schemas about one object. */
export async function judgeBySchema(object: KubernetesObject): Promise<readonly string[]> {
  const model = modelOf(object);
  if (model === undefined) return [`no schema for ${object.apiVersion} ${object.kind}`];
  const Model = ((await import(model)) as Readonly<Record<string, new (data: unknown) => { validate(): void }>>)[object.kind];
  if (Model === undefined) return [`${model} exports no ${object.kind}`];
  try {
    new Model(object).validate();
    return [];
  } catch (fault) {
    return [`${object.kind} ${object.metadata.name}: ${fault instanceof Error ? fault.message : String(fault)}`];
  }
}

/** Fields that do not exist, or have another type, found by the compiler: all objects in one program. */
export function judgeByType(objects: readonly KubernetesObject[], repository: string): readonly string[] {
  const known = objects.filter((object) => modelOf(object) !== undefined);
  const virtual = join(repository, 'tools', 'manifests-as-types.generated.ts');
  const lines = known.map((object, index) => {
    const path = object.apiVersion === 'v1' ? 'v1' : object.apiVersion;
    return `import type { I${object.kind} as T${index} } from 'kubernetes-models/${path}/${object.kind}'; export const o${index}: T${index} = ${JSON.stringify(object)};`;
  });
  const text = lines.join('\n');
  const options: ts.CompilerOptions = {
    strict: true, noEmit: true, skipLibCheck: true, target: ts.ScriptTarget.ES2024, module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext, types: [],
  };
  const host = ts.createCompilerHost(options);
  const ofDisk = ts.createCompilerHost(options);
  host.getSourceFile = (name, ...rest) => (name === virtual ? ts.createSourceFile(name, text, ts.ScriptTarget.ES2024, true) : ofDisk.getSourceFile(name, ...rest));
  host.fileExists = (name) => name === virtual || ofDisk.fileExists(name);
  host.readFile = (name) => (name === virtual ? text : ofDisk.readFile(name));
  host.getCurrentDirectory = () => dirname(virtual);
  const program = ts.createProgram([virtual], options, host);
  const file = program.getSourceFile(virtual);
  return ts.getPreEmitDiagnostics(program, file).map((diagnostic) => {
    const line = file && diagnostic.start !== undefined ? file.getLineAndCharacterOfPosition(diagnostic.start).line : -1;
    const object = known[line];
    return `${object?.kind ?? '?'} ${object?.metadata.name ?? ''}: ${ts.flattenDiagnosticMessageText(diagnostic.messageText, ' ')}`;
  });
}
