import { Controller, Get, Inject, Req, Res } from '@nestjs/common';
import { ApiOperation, ApiTags } from '@nestjs/swagger';
import { RouteConfig } from '@nestjs/platform-fastify';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { GATEWAY, type Gateway } from '../gateway.ts';
import { sendJson } from '../request.http.ts';

@ApiTags('health')
@Controller()
export class HealthHttp {
  private readonly gateway: Gateway;

  constructor(@Inject(GATEWAY) gateway: Gateway) {
    this.gateway = gateway;
  }

  @Get('livez')
  @RouteConfig({ cvAccess: 'public' })
  @ApiOperation({ summary: 'The process answers', operationId: 'livez' })
  livez(@Req() _request: FastifyRequest, @Res() reply: FastifyReply): void {
    sendJson(reply, '{"live":true}');
  }

  @Get('readyz')
  @RouteConfig({ cvAccess: 'public' })
  @ApiOperation({ summary: 'What it needs is there, part by part, in plain words', operationId: 'readyz' })
  async readyz(@Req() _request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    const report = await this.gateway.readiness.report();
    sendJson(reply.code(report.ready ? 200 : 503), JSON.stringify(report));
  }

  @Get('metrics')
  @RouteConfig({ cvAccess: 'public' })
  @ApiOperation({ summary: 'For Prometheus', operationId: 'metrics' })
  async metrics(@Req() _request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    void reply.header('content-type', this.gateway.metrics.contentType).send(await this.gateway.metrics.text());
  }
}
