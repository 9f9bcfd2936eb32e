import { childOf, parseXml } from '@chronovirt/libvirt/xml';
import { expect, it } from 'vitest';
import { BOOT_PORT } from '../boot-jobs/boot-runs.ts';
import { devicesIn } from './live-domain.os.ts';

it('counts devices of a kind, but for the port that machines of an older agent do not have', () => {
  const channel = (name: string): string => `<channel type="unix"><target type="virtio" name="${name}"/></channel>`;
  const counted = (devices: string): unknown => devicesIn(childOf(parseXml(`<domain><devices>${devices}</devices></domain>`), 'devices'));
  expect(counted(channel('org.qemu.guest_agent.0') + channel(BOOT_PORT))).toEqual({ channel: 1 });
  expect(counted(channel('org.qemu.guest_agent.0') + channel('of.somebody.else'))).toEqual({ channel: 2 });
  expect(counted('')).toEqual({});
});
