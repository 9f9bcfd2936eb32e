import { Expert } from '@chronovirt/contracts/vm/expert';
import { describe, expect, it } from 'vitest';
import { expertCpu, expertDevices, expertText } from './expert-xml.ts';

const devices = (wish: object): string => expertDevices(Expert.parse(wish)).map(({ xml }) => xml).join('');

describe('Devices for experts', () => {
  it('are those that every machine has, where nobody says anything', () => {
    expect(devices({})).toBe('<video><model type="vga"/></video><memballoon model="virtio"/><rng model="virtio"><backend model="random">/dev/urandom</backend></rng>');
  });
  it('are there or not as they are said to be', () => {
    expect(devices({ rng: { enabled: false }, balloon: { enabled: false }, video: { model: 'none' } })).toBe('<video><model type="none"/></video><memballoon model="none"/>');
    expect(devices({ watchdog: {}, panic: true, sound: 'ac97' })).toContain('<watchdog model="i6300esb" action="reset"/>');
  });
  it('say a CPU and its features', () => {
    expect(expertCpu(Expert.parse({ cpu: { model: 'Nehalem', features: [{ name: 'aes', policy: 'disable' }] } }).cpu as never, undefined).xml).toBe('<cpu mode="custom" match="exact" check="none"><model fallback="forbid">Nehalem</model><feature policy="disable" name="aes"/></cpu>');
    expect(expertCpu({ model: 'host-passthrough', features: [] }, undefined).xml).toBe('<cpu mode="host-passthrough" check="none"/>');
  });
  it('are the same whatever the order of what is said', () => {
    expect(expertText({ panic: true, cpu: { model: 'a', features: [] } })).toBe(expertText({ cpu: { features: [], model: 'a' }, panic: true }));
    expect(expertText(undefined)).toBe('');
  });
});
