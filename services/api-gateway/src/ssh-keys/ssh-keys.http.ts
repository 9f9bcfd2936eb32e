import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiOperation, ApiResponse, ApiTags } from '@nestjs/swagger';
import { generateKeyPairSync, hash, randomInt } from 'node:crypto';
import { SshKeyId } from '@chronovirt/contracts/ids';
import { RegisterSshKeyBody } from '@chronovirt/contracts/ssh-key/ssh-key.commands';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { decided } from '../command.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { PageQuery, pageOf } from '../page.http.ts';
import { ProblemError } from '../problem.http.ts';
import { requestOf, sendJson, tagged } from '../request.http.ts';
import { Write } from '../write.http.ts';
import { keyIdOf } from './named-keys.http.ts';
import { blobOfLine, privateFile, publicLine } from './openssh.ts';
import { sshKey } from './ssh-key.ts';
import type { SshKeyDocument } from './ssh-key.projection.ts';

interface Pair {
  readonly publicKey: string;
  readonly privateKey: string;
}

/** A pair of which nobody keeps the private half. */
const madePair = (comment: string): Pair => {
  const { d = '', x = '' } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });
  const [publicKey, seed] = [x, d].map((part) => Buffer.from(part, 'base64url')) as [Buffer, Buffer];
  return { publicKey: publicLine(publicKey, comment), privateKey: privateFile({ publicKey, seed, comment, check: randomInt(2 ** 32) }) };
};

@ApiTags('keys')
@ApiBearerAuth()
@Controller('v1/keys')
export class SshKeysHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Post()
  @Write()
  @HttpCode(201)
  @ApiOperation({ summary: 'Make an SSH key, or import the public half of one, so that VMs can be given it by its name', operationId: 'registerKey', description: 'The private half of a pair that is made is in the answer, once, and is kept nowhere: so that takes no Idempotency-Key.' })
  @ApiResponse({ status: 201, description: 'The key, with its private half where it was made', schema: { $ref: '#/components/schemas/RegisteredKey' } })
  async register(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Body({ schema: RegisterSshKeyBody }) body: z.infer<typeof RegisterSshKeyBody>): Promise<void> {
    const asked = requestOf(request, body);
    const { name, publicKey: given } = body;
    if (given === undefined && asked.requestHash !== undefined) throw new ProblemError('idempotency.not_supported', { detail: 'A private key is shown once, so having a pair made takes no Idempotency-Key.' });
    const pair: Omit<Pair, 'privateKey'> & Partial<Pair> = given === undefined ? madePair(name) : { publicKey: given };
    const keyId = keyIdOf(name);
    const fingerprint = `SHA256:${hash('sha256', blobOfLine(pair.publicKey), 'base64').replaceAll('=', '')}`;
    const done = await decided(this.gateway, reply, asked, sshKey, { stream: `ssh-key-${keyId}`, command: { type: 'RegisterSshKey', data: { keyId, name, publicKey: pair.publicKey, fingerprint, made: given === undefined } } }, [keyId]);
    if (done === undefined) return;
    sendJson(reply.code(201).header('cache-control', 'no-store'), JSON.stringify({ id: keyId, name, fingerprint, ...pair }));
  }

  @Get()
  @ApiOperation({ summary: 'SSH keys', operationId: 'listKeys' })
  @ApiResponse({ status: 200, description: 'A page', schema: { $ref: '#/components/schemas/KeyPage' } })
  async list(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Query({ schema: PageQuery }) query: z.infer<typeof PageQuery>): Promise<void> {
    await this.gateway.reading.atLeast(request, reply);
    sendJson(reply, JSON.stringify(await pageOf(this.gateway.views, 'ssh_key', query, (keys: readonly SshKeyDocument[]) => keys)));
  }

  @Get(':id')
  @ApiOperation({ summary: 'One SSH key', operationId: 'getKey' })
  @ApiResponse({ status: 200, description: 'Its public half', schema: { $ref: '#/components/schemas/Key' } })
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: SshKeyId }) id: string): Promise<void> {
    await this.gateway.reading.atLeast(request, reply, id);
    const key = await this.gateway.views.document<SshKeyDocument>('ssh_key', id);
    if (key === undefined) throw new ProblemError('key.not_found', { because: { keyId: id } });
    tagged(reply, key.version);
    sendJson(reply, JSON.stringify(key));
  }

  @Delete(':id')
  @Write()
  @HttpCode(204)
  @ApiOperation({ summary: 'Forget a key. VMs that were given it let it in until it is taken from them', operationId: 'deleteKey' })
  async delete(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id', { schema: SshKeyId }) id: SshKeyId): Promise<void> {
    const done = await decided(this.gateway, reply, requestOf(request, {}), sshKey, { stream: `ssh-key-${id}`, command: { type: 'DeleteSshKey', data: { keyId: id } } }, [id]);
    if (done !== undefined) void reply.code(204).send();
  }
}
