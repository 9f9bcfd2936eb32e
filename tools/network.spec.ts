import { describe, expect, it } from 'vitest';
import { blockOf, freeSubnet, routes } from './network.ts';

describe('a subnet for the VMs', () => {
  it('is the first of ours on a machine that uses none', () => expect(freeSubnet([])).toBe('10.77.0.0/24'));
  it('keeps off an address within it', () => expect(freeSubnet([blockOf('10.77.0.9', 32)])).toBe('10.77.64.0/24'));
  it('keeps off a wide route over it', () => expect(freeSubnet([blockOf('10.64.0.0', 12)])).toBe('10.80.0.0/24'));
  it('is refused where all of 10/8 is taken', () => expect(() => freeSubnet([blockOf('10.0.0.0', 8)])).toThrow(/no subnet/));
  it('reads the kernel\'s table of routes, without the default route', () => {
    const table = 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n' +
      'eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n' +
      'virbr1\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n';
    expect(routes(table)).toEqual([blockOf('10.77.0.0', 24)]);
  });
});
