import { describe, expect, it } from 'vitest';
import { NetworkBoot } from './network.events.ts';

const isIn = (value: object): boolean => NetworkBoot.safeParse(value).success;

describe('What a network tells who starts from it', () => {
  it('is a path at a server, or a URL', () => {
    for (const good of [{ file: 'pxelinux.0', server: '10.0.0.2' }, { file: '/boot/grub/x86_64-efi/core.efi', server: '10.0.0.2' }, { file: 'http://10.0.0.2:8080/boot.ipxe?mac=1&x=%20' }, { file: 'tftp://10.0.0.2/a' }]) expect(isIn(good)).toBe(true);
    for (const bad of [{ file: 'pxelinux.0' }, { file: 'ftp://10.0.0.2/a' }, { file: '', server: '10.0.0.2' }, { file: 'a', server: 'boot.example' }, { file: 'a'.repeat(128), server: '10.0.0.2' }]) expect(isIn(bad)).toBe(false);
  });
  it('cannot become another line, or another part, of the configuration of a DHCP server', () => {
    for (const file of ['a\ndhcp-script=/x', 'a\r', 'a,10.0.0.9', 'a b', 'a#b', 'a"b', '-a', 'a\0']) expect(isIn({ file, server: '10.0.0.2' })).toBe(false);
  });
});
