import { describe, expect, it } from 'vitest';
import { mayFetchFrom } from './address-guard.ts';

describe('An image is fetched', () => {
  it.each(['1.1.1.1', '93.184.216.34', '172.32.0.1', '100.128.0.1', '2606:2800:220:1::1', '2a00:1450::8a', '::ffff:1.1.1.1'])('from %s', (address) => { expect(mayFetchFrom(address, [])).toBe(true); });
  it.each([
    '127.0.0.1', '127.255.255.254', '10.1.2.3', '172.16.0.1', '172.31.255.255', '192.168.0.1', '169.254.169.254', '100.64.0.1', '0.0.0.1', '224.0.0.1', '255.255.255.255', '198.18.0.1',
    '::1', '::', 'fe80::1', 'fe80::1%eth0', 'fd00:ec2::254', 'ff02::1', '::ffff:127.0.0.1', '::ffff:7f00:1', '::ffff:169.254.169.254', '::127.0.0.1', '64:ff9b::7f00:1', '2002:7f00:1::', '2001:db8::1', '2001::1',
    'localhost', '', '1.2.3', '1.2.3.256', '1:2:3', '1::2::3', ':::', 'fe80:0:0:0:0:0:0:0:1',
  ])('never from %s', (address) => { expect(mayFetchFrom(address, [])).toBe(false); });
  it('from a network that the operator has named, and from no other', () => {
    expect(mayFetchFrom('10.20.3.4', ['10.20.0.0/16'])).toBe(true);
    expect(mayFetchFrom('10.21.3.4', ['10.20.0.0/16'])).toBe(false);
    expect(mayFetchFrom('::ffff:10.20.3.4', ['10.20.0.0/16'])).toBe(true);
    expect(mayFetchFrom('fd00:1::5', ['fd00:1::/32'])).toBe(true);
    expect(mayFetchFrom('127.0.0.1', ['127.0.0.0/8', '::1/128'])).toBe(true);
  });
});
