import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import type { NodeId } from '@chronovirt/contracts/ids';
import type { PresenceEvent } from '@chronovirt/contracts/presence/presence.events';
import { isRefusal, replay } from '@chronovirt/decider/decider';
import { scenarioOf } from '@chronovirt/decider/scenario';
import { presence } from './presence.ts';
import { SILENT_AFTER_MS, Watch } from './watch.ts';

const nodeId: NodeId = `node_${'0'.repeat(32)}`;
const silentSince = '2026-01-01T00:00:00.000Z';
const given = scenarioOf(presence, (actual, expected) => { expect(actual).toEqual(expected); });
const fell: PresenceEvent = { type: 'NodeFellSilent', data: { nodeId, silentSince } };
const returned: PresenceEvent = { type: 'NodeReturned', data: { nodeId } };
const skewed: PresenceEvent = { type: 'NodeClockSkewed', data: { nodeId, skewMs: 900 } };

describe('The presence of a node', () => {
  it('is recorded when it changes, and only then', () => {
    given().when({ type: 'RecordSilence', data: { nodeId, silentSince } }).then(fell);
    given(fell).when({ type: 'RecordSilence', data: { nodeId, silentSince } }).then();
    given(fell).when({ type: 'RecordReturn', data: { nodeId } }).then(returned);
    given().when({ type: 'RecordReturn', data: { nodeId } }).then();
    given(fell, returned).when({ type: 'RecordSilence', data: { nodeId, silentSince } }).then(fell);
  });
  it('says that the clock differs beyond half a second, and that it agrees again below a quarter', () => {
    const skew = (skewMs: number) => ({ type: 'RecordSkew', data: { nodeId, skewMs } }) as const;
    given().when(skew(500)).then();
    given().when(skew(900)).then(skewed);
    given().when(skew(-501)).then({ type: 'NodeClockSkewed', data: { nodeId, skewMs: -501 } });
    given(skewed).when(skew(2_000)).then();
    given(skewed).when(skew(300)).then();
    given(skewed).when(skew(249)).then({ type: 'NodeClockAgreed', data: { nodeId } });
  });
});

describe('A watch over heartbeats', () => {
  it('misses a node after 20 s, once', () => {
    const watch = new Watch();
    watch.heard(nodeId, 1_000, 1_000);
    expect(watch.overdue(1_000 + SILENT_AFTER_MS - 1)).toEqual([]);
    expect(watch.overdue(1_000 + SILENT_AFTER_MS)).toEqual([{ type: 'RecordSilence', data: { nodeId, silentSince: new Date(1_000).toISOString() } }]);
    expect(watch.overdue(1_000 + 2 * SILENT_AFTER_MS)).toEqual([]);
    expect(watch.heard(nodeId, 90_000, 90_000)).toEqual([{ type: 'RecordReturn', data: { nodeId } }]);
    expect(watch.heard(nodeId, 94_000, 94_000)).toEqual([]);
  });
  it('that has forgotten everything gives a node the full time', () => {
    const watch = new Watch();
    watch.expect(nodeId, false, 50_000);
    expect(watch.overdue(50_000 + SILENT_AFTER_MS - 1)).toEqual([]);
    expect(watch.overdue(50_000 + SILENT_AFTER_MS)).toHaveLength(1);
  });
  it('knows from the log that a node is silent, and says when it returns', () => {
    const watch = new Watch();
    watch.expect(nodeId, true, 50_000);
    expect(watch.overdue(500_000)).toEqual([]);
    expect(watch.heard(nodeId, 500_000, 500_000)).toContainEqual({ type: 'RecordReturn', data: { nodeId } });
  });
  it('says again what could not be recorded', () => {
    const watch = new Watch();
    watch.heard(nodeId, 0, 0);
    expect(watch.overdue(SILENT_AFTER_MS)).toHaveLength(1);
    // A second later the log still believes it to be heard.
    watch.expect(nodeId, false, SILENT_AFTER_MS + 1_000);
    expect(watch.overdue(SILENT_AFTER_MS + 1_000)).toMatchObject([{ type: 'RecordSilence' }]);
    watch.expect(nodeId, true, SILENT_AFTER_MS + 2_000);
    expect(watch.heard(nodeId, 50_000, 50_000)).toEqual([{ type: 'RecordReturn', data: { nodeId } }]);
    watch.expect(nodeId, true, 51_000);
    expect(watch.heard(nodeId, 54_000, 54_000)).toEqual([{ type: 'RecordReturn', data: { nodeId } }]);
    watch.failed({ type: 'RecordSkew', data: { nodeId, skewMs: 0 } });
    expect(watch.heard(nodeId, 58_000, 58_000)).toContainEqual({ type: 'RecordSkew', data: { nodeId, skewMs: 0 } });
  });
  it('does not miss a node that was removed', () => {
    const watch = new Watch();
    watch.heard(nodeId, 0, 0);
    watch.forget(nodeId);
    expect(watch.overdue(1e9)).toEqual([]);
  });
  it('tells when a clock begins to differ, and when it ends', () => {
    const watch = new Watch();
    // What the log believes of this clock is not known here: the decider knows whether this is news.
    expect(watch.heard(nodeId, 10_000, 10_100)).toEqual([{ type: 'RecordSkew', data: { nodeId, skewMs: -100 } }]);
    expect(watch.heard(nodeId, 11_000, 11_100)).toEqual([]);
    expect(watch.heard(nodeId, 11_400, 11_000)).toEqual([]);
    expect(watch.heard(nodeId, 12_000, 11_000)).toEqual([{ type: 'RecordSkew', data: { nodeId, skewMs: 1_000 } }]);
    expect(watch.heard(nodeId, 13_000, 12_000)).toEqual([]);
    expect(watch.heard(nodeId, 14_000, 14_000)).toEqual([{ type: 'RecordSkew', data: { nodeId, skewMs: 0 } }]);
  });

  it('with the decider behind it, always ends with a clock that is recorded as it is', () => {
    const skews = fc.array(fc.constantFrom(-900, -400, -100, 0, 100, 260, 400, 501, 900), { minLength: 1, maxLength: 30 });
    fc.assert(fc.property(skews, fc.constantFrom(0, 900), fc.nat(30), (heard, last, forgets) => {
      let watch = new Watch();
      let history: readonly PresenceEvent[] = [];
      [...heard, last, last].forEach((skewMs, beat) => {
        // Another one leads, and knows nothing.
        if (beat === forgets) watch = new Watch();
        for (const command of watch.heard(nodeId, beat * 4_000 + skewMs, beat * 4_000)) {
          const decision = presence.decide(command, replay(presence, history));
          if (!isRefusal(decision)) history = [...history, ...decision];
        }
      });
      expect(replay(presence, history).skewed).toBe(Math.abs(last) > 500);
    }));
  });
});
