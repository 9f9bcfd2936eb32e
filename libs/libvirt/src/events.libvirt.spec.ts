/** 10,000 events of the test driver, to several readers at once, and none lost. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DomainEvent } from './events.ts';
import { collect, connections } from './testing-connections.ts';
import { startLibvirtd } from './testing-libvirtd.os.ts';
import type { OwnLibvirtd } from './testing-libvirtd.os.ts';

let daemon: OwnLibvirtd;
const { reach, closeAll } = connections();
beforeAll(async () => {
  daemon = await startLibvirtd();
}, 60_000);
afterAll(async () => {
  await closeAll();
  await daemon?.stop();
});

describe('10,000 events of the test driver', () => {
  it('reach every reader, in order, on the connection that causes them and on another', async () => {
    const guests = 100;
    const rounds = 50;
    const actor = await reach(daemon.testDriver, { inFlightMax: 32 });
    const watcher = await reach(daemon.testDriver);
    const streams = await Promise.all([actor, watcher].map((libvirt) => libvirt.domainEvents({ kinds: ['lifecycle'], queuedMax: 20_000 })));
    const domains = await Promise.all(
      Array.from({ length: guests }, (_, index) =>
        actor.domainCreateXml({ xml: `<domain type='test'><name>e-${index}</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>` }),
      ),
    );
    const readers = streams.map((stream) => collect(stream, (all) => all.length === guests + guests * rounds * 2));
    await Promise.all(
      domains.map(async (domain) => {
        for (let round = 0; round < rounds; round += 1) {
          await actor.domainSuspend({ domain });
          await actor.domainResume({ domain });
        }
      }),
    );
    const expected = ['started', ...Array.from({ length: rounds }, () => ['suspended', 'resumed']).flat()];
    for (const events of await Promise.all(readers)) {
      const byDomain = new Map<string, string[]>();
      for (const event of events as readonly Extract<DomainEvent, { kind: 'lifecycle' }>[]) byDomain.set(event.domain.uuid, [...(byDomain.get(event.domain.uuid) ?? []), event.event]);
      for (const domain of domains) expect(byDomain.get(domain.uuid)).toEqual(expected);
    }
  });
});
