/*
 * Many simulated nodes in one process: each joins by itself, with a machine id and keys of its own, and has
 * a connection of its own to the bus. So hundreds of nodes run on a laptop, and to the platform they are
 * nodes like any other.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createReadiness, startHealthServer } from '@chronovirt/observability/health';
import { createLog } from '@chronovirt/observability/log';
import { createMetrics } from '@chronovirt/observability/metrics';
import { z } from 'zod';
import type { FleetConfig } from './config.ts';
import { JoinRefused } from './join.os.ts';
import { startAgent } from './service.ts';
import type { Running, Shared } from './service.ts';
import type { FakeMachine } from './simulated/fake-machine.os.ts';

export interface Fleet extends Running {
  /** The machine of node `sim-<index>`, once it has joined. */
  machine(index: number): FakeMachine | undefined;
}

/** Agents that join at once: each costs the gateway a signature. */
const JOINING_MAX = 8;
const ISSUE_MS = 10_000;

/** Returns when all have begun; they join in turns. `joinToken` issues one token for each node that has not joined yet. */
export async function startFleet(config: FleetConfig, joinToken: () => Promise<string> = () => issueJoinToken(config)): Promise<Fleet> {
  const log = createLog({ service: 'node-agent', level: config.logLevel });
  const shared: Shared = { log, metrics: createMetrics({ ofTheProcess: true }), readiness: createReadiness() };
  const health = config.healthPort === undefined ? undefined : await startHealthServer({ host: config.healthHost, port: config.healthPort, readiness: shared.readiness, metrics: shared.metrics });

  let joining = 0;
  const waiting: (() => void)[] = [];
  const inTurn = async (): Promise<string> => {
    if (joining >= JOINING_MAX) await new Promise<void>((resolve) => waiting.push(resolve));
    joining++;
    try {
      return await joinToken();
    } finally {
      joining--;
      waiting.shift()?.();
    }
  };

  const agents = Array.from({ length: config.count }, (_, index) => {
    const machineId = `sim-${String(index + 1).padStart(4, '0')}`;
    return startAgent(
      {
        ...config, machineId, name: machineId, joinTokenFile: undefined, stateDir: join(config.stateDir, machineId),
        hypervisor: { kind: 'simulated', simulated: config.simulated },
      },
      shared, inTurn, machineId,
    );
  });
  log.info({ nodes: agents.length }, 'simulated nodes started');
  return {
    machine: (index) => agents[index]?.machine(),
    failed: Promise.race(agents.map((agent) => agent.failed)),
    close: async () => {
      await Promise.all(agents.map((agent) => agent.close()));
      await health?.close();
    },
  };
}

/** Asks the gateway for a single-use join token, with the API token that the configuration names. */
export async function issueJoinToken({ gatewayUrl, tokenFile }: Pick<FleetConfig, 'gatewayUrl' | 'tokenFile'>): Promise<string> {
  const token = (await readFile(tokenFile, 'utf8')).trim();
  const response = await fetch(`${gatewayUrl}/v1/nodes/join-tokens`, {
    method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' }, body: '{}', redirect: 'error', signal: AbortSignal.timeout(ISSUE_MS),
  });
  const body: unknown = await response.json().catch(() => undefined);
  if (!response.ok) throw new JoinRefused(`the gateway issued no join token: it answered ${response.status}`);
  return z.object({ token: z.string().min(1) }).parse(body).token;
}
