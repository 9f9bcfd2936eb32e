import { describe, expect, it } from 'vitest';
import type { NodeId, OperationId, VmId } from '@chronovirt/contracts/ids';
import type { VmCommand } from '@chronovirt/contracts/vm/vm.commands';
import type { VmEvent, VmSpec } from '@chronovirt/contracts/vm/vm.events';
import { isRefusal, replay } from '@chronovirt/decider/decider';
import type { RecordedEvent } from '@chronovirt/event-log/log';
import { timer } from '../view.projection.ts';
import { vm } from './vm.ts';

const hex = (n: number): string => n.toString(16).padStart(32, '0');
const vmId: VmId = `vm_${hex(1)}`;
const nodeId: NodeId = `node_${hex(2)}`;
const op = (n: number): OperationId => `op_${hex(100 + n)}`;
const network = { networkId: `network_${hex(4)}`, subnetId: `subnet_${hex(5)}`, name: 'cv-default', kind: 'nat', cidr: '10.21.0.0/24', gateway: '10.21.0.1', prefix: 24, bridge: 'cvbr-0' } as const;
const DAY = 86_400_000;
const T = Date.parse('2026-06-30T12:00:00.000Z');
const spec: VmSpec = {
  name: 'web-1', description: '', imageId: `image_${hex(6)}`, networkId: network.networkId, subnetId: network.subnetId, vcpus: 1, memoryMib: 256, diskGib: 2,
  accel: 'any', devices: 'virtio', nodeId: null, tags: [], protected: false, vcpusMax: 1, memoryMibMax: 256, boot: ['disk'], media: null, cloudInit: null, diskLimits: null, expiresAt: new Date(T).toISOString(),
};
const provisioned = { poolId: `pool_${hex(3)}`, volumeId: `volume_${hex(1)}`, address: '10.21.0.2', prefix: 24, mac: '52:54:0a:15:00:02' } as const;
const running: readonly VmEvent[] = [
  { type: 'VmRequested', data: { vmId, operationId: op(1), spec, imageFile: 'guest.qcow2', imageFormat: 'qcow2', network } },
  { type: 'VmPlaced', data: { operationId: op(1), nodeId, poolId: provisioned.poolId, generation: 1, decision: {} } },
  { type: 'VmProvisioned', data: { operationId: op(1), provisioned } },
  { type: 'VmObserved', data: { nodeId, session: 1, sequence: 1, generation: 1, state: 'running', reason: 'seen' } },
  { type: 'VmOperationDone', data: { operationId: op(1), how: 'created' } },
];
const WEEK_SECONDS = 7 * 24 * 3_600;

/**
 * A clock that jumps to what is due next, and a node that does what is asked of it at once. `away` are times in
 * which nobody looks at the clock. What happened, with the day relative to T.
 */
const live = (history: readonly VmEvent[], { away, at = {}, days = 60 }: { readonly away?: { readonly from: number; readonly to: number }; readonly at?: Readonly<Record<number, (events: readonly VmEvent[]) => readonly VmEvent[]>>; readonly days?: number } = {}) => {
  const events: VmEvent[] = [];
  const told: string[] = [];
  let due: ReturnType<typeof timer.fold>;
  let now = T - 30 * DAY;
  const take = (one: VmEvent): void => {
    events.push(one);
    const recorded = { ...one, stream: `vm-${vmId}` } as unknown as RecordedEvent;
    for (const key of timer.keys(recorded)) due = timer.fold(due, recorded, key);
    if (!history.includes(one)) told.push(`${String(Math.round((now - T) / DAY))} ${one.type}${one.type === 'VmExpiryNoticed' ? ` ${one.data.stage}` : ''}`);
    if (one.type === 'VmPowerRequested') {
      take({ type: 'VmObserved', data: { nodeId, session: 1, sequence: 2, generation: 1, state: 'stopped', reason: 'shutdown' } });
      take({ type: 'VmOperationDone', data: { operationId: one.data.operationId, how: 'stop' } });
    }
  };
  history.forEach(take);
  const interruptions = Object.entries(at).map(([day, work]) => ({ time: T + Number(day) * DAY, work })).sort((a, b) => a.time - b.time);
  for (let number = 0; number < 50; number++) {
    const [next] = interruptions;
    const time = due === undefined ? Infinity : Math.max(due.at, now);
    const then = next !== undefined && next.time <= time ? next.time : time;
    now = away !== undefined && then >= T + away.from * DAY && then < T + away.to * DAY ? T + away.to * DAY : then;
    if (now > T + days * DAY) break;
    if (next !== undefined && next.time <= time) {
      interruptions.shift();
      next.work(events).forEach(take);
      continue;
    }
    expect(due?.command).toEqual({ to: 'scheduler', target: vmId, type: 'AdvanceExpiry', data: { vmId } });
    const command: VmCommand = { type: 'AdvanceExpiry', data: { vmId, operationId: op(10 + number), now, graceSeconds: WEEK_SECONDS, keepSeconds: WEEK_SECONDS } };
    const decided = vm.decide(command, replay(vm, events));
    if (isRefusal(decided)) {
      told.push(`${String(Math.round((now - T) / DAY))} ${decided.refused}`);
      now += DAY;
    } else decided.forEach(take);
  }
  return told.filter((line) => !/VmObserved|VmOperationDone/.test(line));
};

describe('A VM that is wanted until a time', () => {
  it('is told of a week and a day before, stopped then, in the recycle bin a week later, deleted another week later', () => {
    expect(live(running)).toEqual(['-7 VmExpiryNoticed week', '-1 VmExpiryNoticed day', '0 VmExpired', '0 VmPowerRequested', '7 VmRecycled', '14 VmDeleteRequested', '14 VmDeleteStarted']);
  });
  it('loses nothing of that when nobody was there: what follows is counted from when it was seen to', () => {
    expect(live(running, { away: { from: -3, to: 30 }, days: 90 })).toEqual(['-7 VmExpiryNoticed week', '30 VmExpired', '30 VmPowerRequested', '37 VmRecycled', '44 VmDeleteRequested', '44 VmDeleteStarted']);
  });
  it('is brought back by another time, and kept by none', () => {
    const later = (day: number): readonly VmEvent[] => [{ type: 'VmChanged', data: { expiresAt: new Date(T + day * DAY).toISOString() } }];
    expect(live(running, { at: { 8: () => later(20) }, days: 25 })).toEqual(['-7 VmExpiryNoticed week', '-1 VmExpiryNoticed day', '0 VmExpired', '0 VmPowerRequested', '7 VmRecycled', '8 VmChanged', '13 VmExpiryNoticed week', '19 VmExpiryNoticed day', '20 VmExpired']);
    expect(live(running, { at: { [-2]: () => [{ type: 'VmChanged', data: { expiresAt: null } }] } })).toEqual(['-7 VmExpiryNoticed week', '-2 VmChanged']);
  });
  it('is not started any more, and is with another time', () => {
    const expired = replay(vm, [...running, { type: 'VmExpired', data: { expiresAt: new Date(T).toISOString(), recycleAt: new Date(T + DAY).toISOString() } }, { type: 'VmObserved', data: { nodeId, session: 1, sequence: 2, generation: 1, state: 'stopped', reason: 'shutdown' } }]);
    const start: VmCommand = { type: 'StartVm', data: { vmId, operationId: op(2) } };
    expect(vm.decide(start, expired)).toMatchObject({ refused: 'vm.expired' });
    expect(vm.decide(start, vm.evolve(expired, { type: 'VmChanged', data: { expiresAt: null } }))).toMatchObject([{ type: 'VmPowerRequested' }]);
  });
  it('waits for what has it in hand', () => {
    const busy: VmEvent = { type: 'VmPowerRequested', data: { operationId: op(5), action: 'reboot', timeoutSeconds: 0, force: false } };
    const state = replay(vm, [...running, busy]);
    expect(vm.decide({ type: 'AdvanceExpiry', data: { vmId, operationId: op(6), now: T, graceSeconds: 0, keepSeconds: 0 } }, state)).toMatchObject({ refused: 'vm.busy' });
  });
});
