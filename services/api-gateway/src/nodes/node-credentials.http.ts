import { Controller, Get, Inject, Req, Res } from '@nestjs/common';
import { RouteConfig } from '@nestjs/platform-fastify';
import { ApiExcludeController } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { signerOf } from '../bytes/node-access.http.ts';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { ProblemError } from '../problem.http.ts';
import { sendJson } from '../request.http.ts';

/**
 * A node that joined long ago has a certificate for the bus that says what a node might do then. It asks for the
 * one of today, signed with the key that the certificate is for: GET /v1/node/credentials → {natsJwt, natsUrls}.
 */
@ApiExcludeController()
@Controller('v1/node')
export class NodeCredentialsHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Get('credentials')
  @RouteConfig({ cvAccess: 'node' })
  async credentials(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    const { nodeId, credentialKey } = await signerOf(this.gateway, request);
    const { credentials, natsUrls } = this.gateway;
    if (credentials === undefined) throw new ProblemError('gateway.unavailable', { detail: 'This gateway has no keys for the bus.' });
    sendJson(reply.header('cache-control', 'no-store'), JSON.stringify({ natsJwt: await credentials.mint(nodeId, credentialKey), natsUrls }));
  }
}
