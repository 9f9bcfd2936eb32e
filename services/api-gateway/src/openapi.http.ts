/*
 * The description of this API, OpenAPI 3.1, printed from the schemas that requests are parsed with and from
 * those below, which say what answers look like.
 */
import 'reflect-metadata';
import type { INestApplication, Type } from '@nestjs/common';
import { DocumentBuilder, type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import { z } from 'zod';
import { answers } from './answers.ts';

const converter = (schema: unknown, { schemaType }: { readonly schemaType: 'input' | 'output' }): { schema: unknown; components?: Record<string, unknown> } | undefined => {
  if (!(schema instanceof z.ZodType)) return undefined;
  const { $schema: _, $defs, ...json } = z.toJSONSchema(schema, { target: 'draft-2020-12', io: schemaType, unrepresentable: 'any' }) as Record<string, unknown>;
  // A schema with an id is printed as a reference into $defs, where it stands itself.
  return { schema: rerooted(json), ...(typeof $defs === 'object' && $defs !== null ? { components: rerooted($defs) as Record<string, unknown> } : {}) };
};

/** zod refers to `#/$defs/X`; here they live elsewhere. */
const rerooted = (value: unknown): unknown => JSON.parse(JSON.stringify(value).replaceAll('#/$defs/', '#/components/schemas/')) as unknown;

/**
 * The printer skips parameters of handlers for which the compiler left no types behind, and ours leaves none.
 * Their schemas say it all, so here every parameter is an object, and only the schemas are looked at.
 */
const withParameters = (controllers: readonly Type[]): void => {
  for (const { prototype } of controllers as readonly { readonly prototype: object }[]) {
    for (const name of Object.getOwnPropertyNames(prototype)) {
      const handler = Object.getOwnPropertyDescriptor(prototype, name)?.value as unknown;
      if (typeof handler === 'function' && !Reflect.hasMetadata('design:paramtypes', prototype, name)) {
        Reflect.defineMetadata('design:paramtypes', Array.from({ length: handler.length }, () => Object), prototype, name);
      }
    }
  }
};

const rehearsal = { $ref: '#/components/schemas/Rehearsal' };

/** Whatever takes dryRun answers it with 200, beside what else it may answer with 200. */
const withRehearsals = (paths: OpenAPIObject['paths']): void => {
  for (const path of Object.values(paths)) {
    for (const operation of [path.post, path.patch, path.put, path.delete]) {
      if (operation?.parameters?.some((parameter) => 'name' in parameter && parameter.name === 'dryRun') !== true) continue;
      const usual = operation.responses['200'];
      const schema = usual === undefined || '$ref' in usual ? undefined : usual.content?.['application/json']?.schema;
      operation.responses['200'] = usual === undefined || '$ref' in usual || schema === undefined
        ? { description: 'With dryRun: what would be recorded', content: { 'application/json': { schema: rehearsal } } }
        : { description: `${usual.description}; with dryRun: what would be recorded`, content: { 'application/json': { schema: { oneOf: [schema, rehearsal] } } } };
    }
  }
};

export const openApiText = (app: INestApplication, controllers: readonly Type[], installation: string): string => {
  withParameters(controllers);
  const config = new DocumentBuilder()
    .setTitle('Chronovirt').setVersion('1')
    .setDescription(`Installation ${installation}. Errors are RFC 9457 problems with a stable code. Writes take an Idempotency-Key, dryRun and If-Match, and answer with Cv-Position; reads take Cv-At-Least, and of a single thing answer with its ETag.`)
    .setOpenAPIVersion('3.1.0')
    .addBearerAuth({ type: 'http', scheme: 'bearer', description: 'cv_<installation>_<43 characters>' })
    .addGlobalResponse({ status: 'default', description: 'What went wrong', content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } } })
    .build();
  const document = SwaggerModule.createDocument(app, config, { standardSchemaConverter: converter });
  withRehearsals(document.paths);
  const { schemas } = z.toJSONSchema(answers, { target: 'draft-2020-12', io: 'output', uri: (id) => `#/components/schemas/${id}`, unrepresentable: 'any' });
  // What answers share with requests, zod puts under a name of its own.
  const { __shared: shared, ...named } = schemas as Record<string, Record<string, unknown>>;
  const own = Object.fromEntries(Object.entries({ ...(shared?.['$defs'] as Record<string, Record<string, unknown>> | undefined), ...named }).map(([id, { $schema: _, $id: __, ...schema }]) => [id, schema]));
  return JSON.stringify({ ...document, components: { ...document.components, schemas: { ...own, ...document.components?.schemas } } }).replaceAll('__shared#/$defs/', '');
};
