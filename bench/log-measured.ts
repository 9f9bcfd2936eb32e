/* What the log is measured with: an event of about 1 kB that was revised once, and a projection of it. */
import { event, type EventTable } from '@chronovirt/contracts/event';
import { newCommandId } from '@chronovirt/event-log/command-id';
import type { Append } from '@chronovirt/event-log/log';
import type { Projection } from '@chronovirt/event-log/projection';
import { z } from 'zod';

const shape = {
  vmId: z.string().regex(/^vm_[0-9a-f]{32}$/), nodeId: z.string(), generation: z.int().min(1), vcpus: z.int(), memoryMib: z.int(),
  spec: z.object({ name: z.string().max(63), description: z.string().max(1_000), tags: z.array(z.string().max(64)) }),
};

export const measuredEvents: EventTable = {
  Measured: event(z.object(shape)).revised(z.object({ ...shape, firmware: z.enum(['bios', 'uefi']) }), (older) => ({ ...older, firmware: 'bios' as const })),
};

const description = 'x'.repeat(640);
const VM = 'vm_0192f0a1b2c3d4e5f60718293a4b5c6d';

/** `count` events of one command on a stream that is at `expected`. */
export const measured = (stream: string, expected: number, count = 1): Append => {
  const commandId = newCommandId();
  return {
    commandId, stream, expected, answer: { version: expected + count, facts: { nodeId: 'node_1' } },
    events: Array.from({ length: count }, (_, index) => ({
      type: 'Measured',
      data: { vmId: VM, nodeId: 'node_0192f0a1b2c3d4e5f60718293a4b5c6d', generation: expected + index + 1, vcpus: 2, memoryMib: 2_048, spec: { name: 'web-1', description, tags: ['a', 'b'] }, firmware: 'uefi' },
    })),
    meta: { commandId, actor: 'user_0192f0a1b2c3d4e5f60718293a4b5c6d', operationId: 'op_0192f0a1b2c3d4e5f60718293a4b5c6d', traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' },
  };
};

export interface MeasuredView {
  readonly events: number;
  readonly generation: number;
  readonly memoryMib: number;
}

/** A document for each stream. */
export const measuredView: Projection<MeasuredView> = {
  name: 'monitor.measured_view', version: 1,
  keys: ({ stream }) => [stream],
  fold: (before, { data }) => ({ events: (before?.events ?? 0) + 1, generation: Number(data['generation']), memoryMib: Number(data['memoryMib']) }),
};

/** Appends from `concurrent` workers, each on streams of its own, until `ms` have passed. Returns commands, events and times. */
export const appendFor = async (
  log: { append(append: Append): Promise<{ readonly kind: string }> }, prefix: string, concurrent: number, ms: number, eventsEach = 1,
): Promise<{ readonly commands: number; readonly events: number; readonly seconds: number; readonly timesMs: readonly number[] }> => {
  const startedAt = performance.now();
  const end = startedAt + ms;
  const timesMs: number[] = [];
  await Promise.all(Array.from({ length: concurrent }, async (_, worker) => {
    for (let round = 0, at = startedAt; at < end; round++) {
      const stream = `measured-${prefix}_${String(worker)}_${String(Math.floor(round / 100))}`;
      const { kind } = await log.append(measured(stream, (round % 100) * eventsEach, eventsEach));
      if (kind !== 'appended') throw new Error(`an append of ${stream} came back as ${kind}`);
      const now = performance.now();
      timesMs.push(now - at);
      at = now;
    }
  }));
  return { commands: timesMs.length, events: timesMs.length * eventsEach, seconds: (performance.now() - startedAt) / 1_000, timesMs };
};
