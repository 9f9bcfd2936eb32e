import { describe, expect, it } from 'vitest';
import type { OperationId, SnapshotId, VolumeId } from '@chronovirt/contracts/ids';
import type { InnerName, InnerStep, Layer, LayerStep, Snapshot } from '@chronovirt/contracts/vm/snapshot';
import { activeLayers, freshLayer, holds, noSnapshots, reverted, type Snapshots, taken, tidied, without } from './snapshots.ts';

const system: VolumeId = `volume_${'1'.repeat(32)}`;
const data: VolumeId = `volume_${'2'.repeat(32)}`;
const id = (n: number): SnapshotId => `snapshot_${String(n).padStart(32, '0')}`;
const layer = (n: number): string => n.toString(16).padStart(8, '0');

/** Takes the n-th snapshot of these disks; the new layer has its number. */
const take = (from: Snapshots, n: number, volumes: readonly VolumeId[] = [system], kind: Snapshot['kind'] = 'external'): Snapshots => {
  const active = activeLayers(from);
  const snapshot: Snapshot = {
    snapshotId: id(n), kind, name: `s${String(n)}`, description: '', parent: from.current, state: 'running', frozen: false,
    disks: volumes.map((volumeId, unit) => ({ volumeId, unit, sizeGib: 1, layer: active[volumeId] ?? null })),
  };
  return taken(from, snapshot, kind === 'internal' ? null : layer(n));
};
const op = (n: number): OperationId => `op_${String(n).padStart(32, '0')}`;
const revert = (from: Snapshots, n: number, to: number): Snapshots => tidied(reverted(from, id(n), layer(to), op(to))).snapshots;
const remove = (from: Snapshots, n: number) => tidied(without(from, id(n)));
const shape = ({ disks }: Snapshots, volumeId = system) => {
  const disk = disks.find((one) => one.volumeId === volumeId);
  return { active: disk?.active ?? null, on: Object.fromEntries((disk?.layers ?? []).map((one) => [one.layer, one.on])) };
};
const two = take(take(noSnapshots, 1), 2);

describe('Taking a snapshot', () => {
  it('freezes what was written, and a new layer is written', () => {
    expect(shape(two)).toEqual({ active: layer(2), on: { [layer(1)]: null, [layer(2)]: layer(1) } });
    expect(two.list.map(({ parent, disks }) => [parent, disks[0]?.layer])).toEqual([[null, null], [id(1), layer(1)]]);
    expect(two.current).toBe(id(2));
  });
  it('holds the disks that there were, and no other', () => {
    const one = take(noSnapshots, 1, [system, data]);
    expect([holds(one, system), holds(one, data), holds(two, data)]).toEqual([true, true, false]);
    expect(activeLayers(one)).toEqual({ [system]: layer(1), [data]: layer(1) });
  });
  it('names its layer after the operation, and never as another', () => {
    const operationId: OperationId = `op_${'ab'.repeat(12)}${layer(7)}`;
    expect(freshLayer(two, operationId)).toBe(layer(7));
    expect(freshLayer(take(two, 7), operationId)).not.toBe(layer(7));
  });
});

describe('Deleting a snapshot', () => {
  it('merges what is written into what it froze, and the disk is the one it was made with again', () => {
    const { steps, snapshots } = remove(take(noSnapshots, 1), 1);
    expect(steps).toEqual([{ kind: 'merge', volumeId: system, layer: layer(1), into: null, active: true, above: [] }]);
    expect(snapshots).toEqual(noSnapshots);
  });
  it('merges a layer between others, which stand on what it became', () => {
    const { steps, snapshots } = remove(two, 1);
    expect(steps).toEqual([{ kind: 'merge', volumeId: system, layer: layer(1), into: null, active: false, above: [layer(2)] }]);
    expect(shape(snapshots)).toEqual({ active: layer(2), on: { [layer(2)]: null } });
    expect(snapshots.list).toMatchObject([{ name: 's2', parent: null, disks: [{ layer: null }] }]);
  });
  it('leaves what two others stand on, until one of them is gone', () => {
    // s2 is on s1, and what is written since the revert is on s1 as well.
    const forked = revert(two, 1, 3);
    expect(shape(forked)).toEqual({ active: layer(3), on: { [layer(1)]: null, [layer(3)]: null } });
    const first = remove(forked, 1);
    expect(first.steps).toEqual([]);
    expect(first.snapshots.current).toBeNull();
    const second = remove(first.snapshots, 2);
    expect(second.steps).toEqual([{ kind: 'drop', volumeId: system, layer: layer(1) }, { kind: 'merge', volumeId: system, layer: layer(3), into: null, active: true, above: [] }]);
    expect(second.snapshots).toEqual(noSnapshots);
  });
  it('gives its place in the tree to those that were taken on it', () => {
    const { snapshots } = remove(take(two, 3), 2);
    expect(snapshots.list.map(({ name, parent }) => [name, parent])).toEqual([['s1', null], ['s3', id(1)]]);
  });
});

describe('Going back to a snapshot', () => {
  it('writes a new layer on what it froze, and takes away what nothing stands on', () => {
    const { steps, snapshots } = tidied(reverted(two, id(1), layer(3), op(3)));
    expect(steps).toEqual([{ kind: 'drop', volumeId: system, layer: layer(2) }]);
    expect(shape(snapshots)).toEqual({ active: layer(3), on: { [layer(1)]: null, [layer(3)]: null } });
    expect(snapshots.current).toBe(id(1));
  });
});

describe('An internal snapshot', () => {
  const one = take(noSnapshots, 1, [system, data], 'internal');
  it('is kept inside of each disk under its own name, and makes no layer', () => {
    expect([one.disks, one.current, holds(one, data)]).toEqual([[], id(1), true]);
    expect(one.inner).toEqual([{ volumeId: system, name: id(1) }, { volumeId: data, name: id(1) }]);
    expect(tidied(one)).toEqual({ steps: [], snapshots: one });
  });
  it('goes from inside of each disk when it is deleted', () => {
    const { steps, snapshots } = remove(one, 1);
    expect(steps).toEqual([system, data].map((volumeId) => ({ kind: 'forget', volumeId, inner: id(1) })));
    expect(snapshots).toEqual(noSnapshots);
  });
  it('that is gone back to leaves behind what there was, under the name of the operation', () => {
    const { steps, snapshots } = tidied(reverted(take(one, 2, [system, data], 'internal'), id(1), null, op(7)));
    expect(steps).toEqual([system, data].map((volumeId) => ({ kind: 'forget', volumeId, inner: op(7) })));
    expect([snapshots.current, snapshots.inner.length, snapshots.list.map(({ parent }) => parent)]).toEqual([id(1), 4, [null, id(1)]]);
  });
});

/** What a node has: the bytes that were written into each layer, and what it stands on. */
type Files = Map<string, { bytes: readonly string[]; on: Layer }>;
const nameOf = (name: Layer): string => name ?? 'base';
const contentOf = (files: Files, name: Layer): readonly string[] => {
  const file = files.get(nameOf(name));
  if (file === undefined) throw new Error(`no layer ${nameOf(name)}`);
  return [...(name === null ? [] : contentOf(files, file.on)), ...file.bytes];
};
/** As qemu-img would do it, and refuse what would lose bytes. */
const carryOut = (files: Files, step: LayerStep): void => {
  if (step.kind === 'forget' || step.kind === 'return') throw new Error('nothing is kept inside');
  const own = files.get(step.layer);
  if (own === undefined) throw new Error(`no layer ${step.layer}`);
  if (step.kind === 'merge') {
    const into = files.get(nameOf(step.into));
    if (into === undefined || nameOf(own.on) !== nameOf(step.into)) throw new Error('not what it stands on');
    if ([...files].some(([name, { on }]) => name !== step.layer && name !== 'base' && nameOf(on) === nameOf(step.into))) throw new Error('something else stands on it');
    into.bytes = [...into.bytes, ...own.bytes];
    for (const above of step.above) {
      const file = files.get(above);
      if (file === undefined) throw new Error(`no layer ${above}`);
      file.on = step.into;
    }
  }
  files.delete(step.layer);
  if ([...files].some(([name, { on }]) => name !== 'base' && on === step.layer)) throw new Error(`something stands on ${step.layer}, which is gone`);
};

/** As qemu-img would do it. */
const letGo = (inside: Map<InnerName, readonly string[]>, { inner }: InnerStep): void => {
  if (!inside.delete(inner)) throw new Error(`nothing is kept as ${inner}`);
};

describe('Whatever is taken, reverted to and deleted, in any order', () => {
  it('inside of a file: each snapshot holds what was written until it was taken, and nothing else is kept', () => {
    for (let seed = 1; seed <= 200; seed++) {
      let random = seed;
      const below = (n: number): number => {
        random = (random * 48_271) % 2_147_483_647;
        return random % n;
      };
      const inside = new Map<InnerName, readonly string[]>();
      const expected = new Map<InnerName, readonly string[]>();
      let written: readonly string[] = [];
      let now = noSnapshots;
      const settle = (next: Snapshots): void => {
        const { steps, snapshots } = tidied(next);
        for (const step of steps) letGo(inside, step as InnerStep);
        now = snapshots;
      };
      for (let number = 1; number <= 30; number++) {
        written = [...written, `w${String(number)}`];
        const target = now.list[below(Math.max(1, now.list.length))];
        const act = target === undefined ? 0 : below(3);
        if (act === 0) {
          inside.set(id(number), written);
          expected.set(id(number), written);
          settle(take(now, number, [system], 'internal'));
        } else if (target !== undefined && act === 1) {
          inside.set(op(number), written);
          written = inside.get(target.snapshotId) ?? [];
          settle(reverted(now, target.snapshotId, null, op(number)));
          expect(written).toEqual(expected.get(target.snapshotId));
        } else if (target !== undefined) settle(without(now, target.snapshotId));
        expect([...inside.keys()].sort()).toEqual(now.list.map(({ snapshotId }) => snapshotId).sort());
      }
      for (const { snapshotId } of [...now.list]) settle(without(now, snapshotId));
      expect([now, inside.size]).toEqual([noSnapshots, 0]);
    }
  });
  it('each snapshot holds what was written until it was taken, and without snapshots one file is left', () => {
    for (let seed = 1; seed <= 500; seed++) {
      let random = seed;
      const below = (n: number): number => {
        random = (random * 48_271) % 2_147_483_647;
        return random % n;
      };
      const files: Files = new Map([['base', { bytes: [], on: null }]]);
      const expected = new Map<SnapshotId, readonly string[]>();
      let written: readonly string[] = [];
      let now = noSnapshots;
      let number = 0;
      const settle = (next: Snapshots): void => {
        const { steps, snapshots } = tidied(next);
        for (const step of steps) carryOut(files, step);
        now = snapshots;
      };
      const active = (): Layer => activeLayers(now)[system] ?? null;
      const check = (): void => {
        expect(contentOf(files, active())).toEqual(written);
        for (const { snapshotId, disks } of now.list) expect(contentOf(files, disks[0]?.layer ?? null)).toEqual(expected.get(snapshotId));
        expect([...files.keys()].sort()).toEqual(['base', ...(now.disks[0]?.layers ?? []).map((one) => one.layer)].sort());
      };
      for (let acts = 0; acts < 30; acts++) {
        number += 1;
        written = [...written, `w${String(number)}`];
        const file = files.get(nameOf(active()));
        if (file === undefined) throw new Error('nothing is written');
        file.bytes = [...file.bytes, `w${String(number)}`];
        const target = now.list[below(Math.max(1, now.list.length))];
        const act = target === undefined ? 0 : below(3);
        if (act === 0) {
          files.set(layer(number), { bytes: [], on: active() });
          expected.set(id(number), written);
          now = take(now, number);
        } else if (target !== undefined && act === 1) {
          files.set(layer(number), { bytes: [], on: target.disks[0]?.layer ?? null });
          settle(reverted(now, target.snapshotId, layer(number), op(number)));
          written = expected.get(target.snapshotId) ?? [];
        } else if (target !== undefined) settle(without(now, target.snapshotId));
        check();
      }
      for (const { snapshotId } of [...now.list]) settle(without(now, snapshotId));
      expect(now).toEqual(noSnapshots);
      check();
    }
  });
});
