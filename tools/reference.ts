/*
 * Prints docs/reference from the code, so that it cannot say anything else:
 *
 *   events.md      libs/contracts: every event, its shape and fields, and the comment that stands above it
 *   commands.md    libs/contracts: every command, who receives it, what names its target
 *   messaging.md   libs/messaging/src/topology.ts: streams, consumers, subjects, headers, what an agent may do
 *   metrics.md     every metric that a source names
 *   openapi.json   what GET /v1/openapi.json of the gateway answers
 *
 *   node tools/reference.ts            writes
 *   node tools/reference.ts --check    exits with 1 where what lies there differs
 *
 * It runs from what was built, because Node cannot strip decorators; `npm run build` comes before it.
 * tools/reference.spec.ts compares from the sources.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createGateway } from '@chronovirt/api-gateway/gateway.http';
import type { Gateway } from '@chronovirt/api-gateway/gateway';
import type { CommandSpec } from '@chronovirt/contracts/command';
import { allEvents } from '@chronovirt/contracts/registry';
import { createLog } from '@chronovirt/observability/log';
import { createMetrics } from '@chronovirt/observability/metrics';
import { agentInboxPrefix, agentPermissions, commandsOf, commandsOfNode, crossings, headerNames, serviceConsumers, serviceInboxPrefix, streams, subjects } from '@chronovirt/messaging/topology';
import ts from 'typescript';
import { z } from 'zod';
import { REPOSITORY } from './home.ts';

const CONTRACTS = join(REPOSITORY, 'libs/contracts/src');
const PRINTED = 'Printed by `tools/reference.ts`; do not edit.';

/** Text of each file of docs/reference, by its name. */
export async function printReference(): Promise<ReadonlyMap<string, string>> {
  return new Map([
    ['README.md', `# Reference\n\n${PRINTED}\n\n- [Events](events.md): what may stand in the log.\n- [Commands](commands.md): what may be asked, and of whom.\n- [Messaging](messaging.md): streams, consumers, subjects, headers, permissions.\n- [Metrics](metrics.md): what \`/metrics\` shows.\n- [OpenAPI 3.1](openapi.json): the REST API.\n`],
    ['events.md', await eventsPage()],
    ['commands.md', await commandsPage()],
    ['messaging.md', messagingPage()],
    ['metrics.md', metricsPage()],
    ['openapi.json', await openApi()],
  ]);
}

// --- events and commands ---------------------------------------------------------------------------------------

/** Tables of contracts, `vmEvents` and the like, with the file they stand in. */
async function tablesOf(suffix: 'Events' | 'Commands'): Promise<readonly { readonly category: string; readonly name: string; readonly source: string; readonly entries: readonly (readonly [string, unknown])[] }[]> {
  const found = [];
  for (const category of readdirSync(CONTRACTS, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => name).sort()) {
    const file = `${category}/${category}.${suffix.toLowerCase()}`;
    if (!existsSync(join(CONTRACTS, `${file}.ts`))) continue;
    const exported = (await import(`@chronovirt/contracts/${file}`)) as Readonly<Record<string, unknown>>;
    for (const [name, table] of Object.entries(exported)) {
      if (name.endsWith(suffix) && typeof table === 'object' && table !== null) found.push({ category, name, source: `libs/contracts/src/${file}.ts`, entries: Object.entries(table) });
    }
  }
  return found;
}

/** The comment above each property of a file's object literals, as one line. */
function commentsIn(source: string): ReadonlyMap<string, string> {
  const text = readFileSync(join(REPOSITORY, source), 'utf8');
  const file = ts.createSourceFile(source, text, ts.ScriptTarget.Latest, true);
  const comments = new Map<string, string>();
  const visit = (node: ts.Node): void => {
    if (ts.isPropertyAssignment(node) && /^[A-Z]/.test(node.name.getText(file))) {
      const [last] = (ts.getLeadingCommentRanges(text, node.getFullStart()) ?? []).slice(-1);
      if (last) comments.set(node.name.getText(file), text.slice(last.pos, last.end).replace(/^\/\*\*?|\*\/$|^\/\/ ?/g, '').replace(/\n\s*\*? ?/g, ' ').trim());
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return comments;
}

interface JsonSchema {
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly pattern?: string;
  readonly format?: string;
  readonly $ref?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
  readonly additionalProperties?: JsonSchema | boolean;
  readonly minimum?: number;
  readonly maximum?: number;
}

const schemaOf = (schema: z.ZodType): JsonSchema => z.toJSONSchema(schema, { target: 'draft-2020-12', io: 'output', unrepresentable: 'any' }) as JsonSchema;

/** A type in one line, as TypeScript would have it. */
function typeOf(schema: JsonSchema): string {
  if (schema.$ref !== undefined) return 'json';
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(' | ');
  if (schema.anyOf) return [...new Set(schema.anyOf.map(typeOf))].join(' | ');
  switch (schema.type) {
    case 'array': {
      const item = typeOf(schema.items ?? {});
      return item.includes(' ') ? `(${item})[]` : `${item}[]`;
    }
    case 'object': {
      if (schema.properties === undefined) return typeof schema.additionalProperties === 'object' ? `{ [name]: ${typeOf(schema.additionalProperties)} }` : 'object';
      return `{ ${Object.entries(schema.properties).map(([name, inner]) => `${name}${schema.required?.includes(name) ? '' : '?'}: ${typeOf(inner)}`).join(', ')} }`;
    }
    case 'string': {
      // Ids: '^vm_[0-9a-f]{32}$'.
      const kind = /^\^(\w+_)\(?\[0-9a-f\]\{32\}/.exec(schema.pattern ?? '')?.[1];
      return kind === undefined ? (schema.format ?? 'string') : `${kind}…`;
    }
    case undefined:
      return 'json';
    default:
      return schema.type;
  }
}

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

/** Fields of an object, one to a row. */
function fieldsOf(schema: JsonSchema): readonly string[] {
  const fields = Object.entries(schema.properties ?? {});
  if (fields.length === 0) return ['No fields.', ''];
  return ['| field | type |', '|---|---|', ...fields.map(([name, inner]) => `| \`${name}\`${schema.required?.includes(name) ? '' : ' (optional)'} | \`${cell(typeOf(inner))}\` |`), ''];
}

async function eventsPage(): Promise<string> {
  const tables = await tablesOf('Events');
  const missing = Object.keys(allEvents).filter((type) => !tables.some(({ entries }) => entries.some(([name]) => name === type)));
  if (missing.length > 0) throw new Error(`the registry has events that no table of contracts/src has: ${missing.join(', ')}`);
  const lines = ['# Events', '', PRINTED, '', 'The newest shape of each; older ones are upcast as they are read. Streams are named `<category>-<id>`.', ''];
  for (const { category, source, entries } of tables) {
    const comments = commentsIn(source);
    lines.push(`## ${category}`, '', `\`${source}\``, '');
    for (const [type, event] of entries) {
      // Private to the class, so that nobody but it reads and writes events by it; here it is only printed.
      const { schema, shape } = event as { readonly schema: z.ZodType; readonly shape: number };
      lines.push(`### ${type}${shape > 1 ? ` (shape ${shape})` : ''}`, '');
      const comment = comments.get(type);
      if (comment) lines.push(comment, '');
      lines.push(...fieldsOf(schemaOf(schema)));
    }
  }
  return lines.join('\n');
}

async function commandsPage(): Promise<string> {
  const lines = ['# Commands', '', PRINTED, '', 'Each travels in an envelope (`libs/contracts/src/command.ts`) and is answered once: with a version, or with a refusal.', ''];
  for (const { category, source, entries } of await tablesOf('Commands')) {
    const comments = commentsIn(source);
    lines.push(`## ${category}`, '', `\`${source}\``, '');
    for (const [type, command] of entries) {
      const { to, target, schema } = command as CommandSpec<Readonly<Record<string, unknown>>>;
      lines.push(`### ${type}`, '');
      const comment = comments.get(type);
      if (comment) lines.push(comment, '');
      lines.push(`To \`${to}\`, about \`${target}\`.`, '', ...fieldsOf(schemaOf(schema)));
    }
  }
  return lines.join('\n');
}

// --- messaging -----------------------------------------------------------------------------------------------------

const span = (ms: number): string => (ms >= 86_400_000 ? `${ms / 86_400_000} d` : ms >= 60_000 ? `${ms / 60_000} min` : `${ms / 1_000} s`);

function messagingPage(): string {
  const node = '<node>';
  // The functions check their arguments, so a placeholder goes in as a token and comes out as a placeholder.
  const shown = (text: string): string => text.replaceAll('NODE', node).replaceAll('SERVICE', '<service>').replaceAll('TARGET', '<target>').replaceAll('PROCESS', '<process>').replaceAll('CATEGORY', '<category>').replaceAll('ID', '<id>').replaceAll('TYPE', '<EventType>');
  const permissions = agentPermissions('NODE');
  const consumers = [...serviceConsumers, commandsOfNode('NODE')];
  return [
    '# Messaging', '', PRINTED, '', 'Every name is made in `libs/messaging/src/topology.ts`.', '',
    '## Streams', '', '| stream | subjects | keeps | at most | when full |', '|---|---|---|---|---|',
    ...streams.map(({ name, subjects: own, retention, ageMaxMs, bytesMax, whenFull }) =>
      `| \`${name}\` | ${own.map((one) => `\`${one}\``).join(', ')} | ${retention === 'workqueue' ? 'until acknowledged, ' : ''}${span(ageMaxMs)} | ${bytesMax / 2 ** 30} GiB | ${whenFull === 'old' ? 'drops the oldest' : 'refuses the newest'} |`),
    '', '## Consumers', '', '| durable | stream | filter | delivered again after | unsettled at most | pushed to |', '|---|---|---|---|---|---|',
    ...consumers.map(({ durable, stream, filter, ackWaitMs, ackPendingMax, deliverTo }) => `| \`${shown(durable)}\` | \`${stream}\` | \`${shown(filter)}\` | ${span(ackWaitMs)} | ${ackPendingMax} | ${deliverTo === undefined ? '' : `\`${shown(deliverTo)}\``} |`),
    '', '## Subjects', '', '| what | subject |', '|---|---|',
    ...([
      ['an event, published by the relay', subjects.event('CATEGORY', 'ID', 'TYPE')],
      ['a command to a service', commandsOf('SERVICE').filter.replace('*', 'TARGET')],
      ['a command to a node', subjects.command('node', 'NODE')],
      ['a command on its way to the agent', commandsOfNode('NODE').deliverTo ?? ''],
      ['what a node saw', subjects.report('NODE', 'CATEGORY', 'ID')],
      ['a heartbeat (core NATS)', subjects.heartbeat('NODE')],
      ['a hello, answered with a welcome (core NATS)', subjects.hello('NODE')],
      ['an answer of a service (core NATS)', subjects.answer('PROCESS', 'SERVICE', 'TARGET')],
      ['an answer of a node (core NATS)', subjects.answer('PROCESS', 'node', 'NODE')],
      ['set aside, with the reason', subjects.dead('<subject>')],
    ] as const).map(([what, subject]) => `| ${what} | \`${shown(subject)}\` |`),
    '', '## Headers', '', '| name | header |', '|---|---|',
    ...Object.entries(headerNames).map(([name, header]) => `| ${name} | \`${header}\` |`),
    '', '## What an agent may do', '', 'In the account `AGENTS`, which has no streams. Nothing else is let through.', '',
    '| publish | subscribe |', '|---|---|',
    ...Array.from({ length: Math.max(permissions.pub.allow.length, permissions.sub.allow.length) }, (_, index) => {
      const quoted = (text: string | undefined): string => (text === undefined ? '' : `\`${shown(text)}\``);
      return `| ${quoted(permissions.pub.allow[index])} | ${quoted(permissions.sub.allow[index])} |`;
    }),
    '', 'What passes between the account of the agents and that of the services:', '', '| what | subject | from |', '|---|---|---|',
    ...crossings.map(({ name, subject, direction }) => `| ${name} | \`${subject}\` | ${direction === 'in' ? 'agents to services' : 'services to agents'} |`),
    '', `Replies of services come to \`${serviceInboxPrefix}\`, those of an agent to \`${shown(agentInboxPrefix('NODE'))}\`.`, '',
  ].join('\n');
}

// --- metrics ---------------------------------------------------------------------------------------------------------

interface Metric {
  readonly name: string;
  readonly kind: string;
  readonly help: string;
  readonly labels: readonly string[];
  readonly source: string;
}

function metricsPage(): string {
  const found = new Map<string, Metric>();
  for (const source of sources()) {
    const text = readFileSync(join(REPOSITORY, source), 'utf8');
    if (!text.includes("'cv_")) continue;
    const file = ts.createSourceFile(source, text, ts.ScriptTarget.Latest, true);
    const visit = (node: ts.Node): void => {
      if (ts.isCallExpression(node) && ts.isPropertyAccessExpression(node.expression) && ['counter', 'gauge', 'histogram'].includes(node.expression.name.text)) {
        const [name, help, labels] = node.arguments;
        if (name && help && ts.isStringLiteralLike(name) && ts.isStringLiteralLike(help)) {
          found.set(name.text, { name: name.text, kind: node.expression.name.text, help: help.text, source, labels: labels && ts.isArrayLiteralExpression(labels) ? labels.elements.filter(ts.isStringLiteralLike).map((one) => one.text) : [] });
        }
      }
      ts.forEachChild(node, visit);
    };
    visit(file);
  }
  const metrics = [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return [
    '# Metrics', '', PRINTED, '', 'At `/metrics` of each process, beside the usual ones of Node and the process (`process_…`, `nodejs_…`).', '',
    '| metric | kind | what it counts | labels | from |', '|---|---|---|---|---|',
    ...metrics.map(({ name, kind, help, labels, source }) => `| \`${name}\` | ${kind} | ${cell(help)} | ${labels.map((label) => `\`${label}\``).join(', ')} | \`${source.split('/').slice(0, 2).join('/')}\` |`), '',
  ].join('\n');
}

/** Production sources of libraries and services, relative to the repository. */
function sources(): readonly string[] {
  return ['libs', 'services'].flatMap((group) => readdirSync(join(REPOSITORY, group)).flatMap((name) => {
    const folder = `${group}/${name}/src`;
    if (name === 'simulation' || !existsSync(join(REPOSITORY, folder))) return [];
    return readdirSync(join(REPOSITORY, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts') && !file.endsWith('.spec.ts') && !/(^|\/)testing-/.test(file)).map((file) => `${folder}/${file}`);
  })).sort();
}

// --- the API -----------------------------------------------------------------------------------------------------------

async function openApi(): Promise<string> {
  // Printed from decorators and schemas before any request is answered: no other part of a gateway is asked.
  const gateway = { installation: '00000000', log: createLog({ service: 'reference', level: 'error' }), metrics: createMetrics() } as unknown as Gateway;
  const app = await createGateway(gateway, { traced: false });
  try {
    const response = await app.inject({ method: 'GET', url: '/v1/openapi.json' });
    if (response.statusCode !== 200) throw new Error(`the gateway did not print its API: ${response.statusCode} ${response.body.slice(0, 500)}`);
    return `${JSON.stringify(JSON.parse(response.body), null, 1)}\n`;
  } finally {
    await app.close();
  }
}

export const REFERENCE = join(REPOSITORY, 'docs/reference');

/** Names of files that are missing, differ, or that nothing prints. */
export function differing(printed: ReadonlyMap<string, string>, folder = REFERENCE): readonly string[] {
  const there = existsSync(folder) ? readdirSync(folder) : [];
  return [
    ...[...printed].filter(([name, text]) => !there.includes(name) || readFileSync(join(folder, name), 'utf8') !== text).map(([name]) => name),
    ...there.filter((name) => !printed.has(name)),
  ];
}

if (import.meta.main) {
  const printed = await printReference();
  const changed = differing(printed);
  if (process.argv.includes('--check')) {
    if (changed.length > 0) {
      console.log(`docs/reference is not what the code says: ${changed.join(', ')}. Run \`node tools/reference.ts\` after \`npm run build\`.`);
      process.exitCode = 1;
    }
  } else {
    for (const [name, text] of printed) {
      mkdirSync(dirname(join(REFERENCE, name)), { recursive: true });
      writeFileSync(join(REFERENCE, name), text);
    }
    console.log(changed.length === 0 ? 'docs/reference is as it was.' : `written: ${changed.join(', ')}`);
  }
}
