/*
 * The description of this API, OpenAPI 3.1, printed from the schemas that requests are parsed with and from
 * those below, which say what answers look like.
 */
import 'reflect-metadata';
import type { INestApplication, Type } from '@nestjs/common';
import { DocumentBuilder, SwaggerModule } from '@nestjs/swagger';
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

export const openApiText = (app: INestApplication, controllers: readonly Type[], installation: string): string => {
  withParameters(controllers);
  const config = new DocumentBuilder()
    .setTitle('Chronovirt').setVersion('1')
    .setDescription(`Installation ${installation}. Errors are RFC 9457 problems with a stable code. Writes take an Idempotency-Key and answer with Cv-Position; reads take Cv-At-Least.`)
    .setOpenAPIVersion('3.1.0')
    .addBearerAuth({ type: 'http', scheme: 'bearer', description: 'cv_<installation>_<43 characters>' })
    .addGlobalResponse({ status: 'default', description: 'What went wrong', content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } } })
    .build();
  const document = SwaggerModule.createDocument(app, config, { standardSchemaConverter: converter });
  const { schemas } = z.toJSONSchema(answers, { target: 'draft-2020-12', io: 'output', uri: (id) => `#/components/schemas/${id}`, unrepresentable: 'any' });
  // What answers share with requests, zod puts under a name of its own.
  const { __shared: shared, ...named } = schemas as Record<string, Record<string, unknown>>;
  const own = Object.fromEntries(Object.entries({ ...(shared?.['$defs'] as Record<string, Record<string, unknown>> | undefined), ...named }).map(([id, { $schema: _, $id: __, ...schema }]) => [id, schema]));
  return JSON.stringify({ ...document, components: { ...document.components, schemas: { ...own, ...document.components?.schemas } } }).replaceAll('__shared#/$defs/', '');
};
