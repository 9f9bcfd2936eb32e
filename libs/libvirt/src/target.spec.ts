import { describe, expect, it } from 'vitest';
import { targetOf } from './target.ts';

describe('a URI', () => {
  it.each([
    ['qemu:///system', 'qemu:///system', /^\/run\/libvirt\/(libvirt|virtqemud)-sock$/],
    ['test:///default', 'test:///default', /^\/run\/libvirt\/libvirt-sock$/],
    ['test+unix:///default?socket=/tmp/a/libvirt-sock', 'test:///default', /^\/tmp\/a\/libvirt-sock$/],
    ['test+unix:///abs/file.xml?socket=/s&mode=legacy', 'test:///abs/file.xml', /^\/s$/],
    ['qemu:///session', 'qemu:///session', /^\/run\/user\/\d+\/libvirt\/libvirt-sock$/],
    ['esx:///system?no_verify=1&vpx=2&socket=/s', 'esx:///system?vpx=2', /^\/s$/],
  ])('%s means the driver %s', (uri, driver, socket) => {
    const target = targetOf(uri);
    expect(target.driver).toBe(driver);
    expect(target.socket).toMatch(socket);
  });

  it('for reading alone has its own socket', () => expect(targetOf('qemu:///system', true).socket).toMatch(/-sock-ro$/));

  it.each(['qemu+tcp://host/system', 'qemu+ssh://root@host/system', 'qemu://host/system', 'system', ''])('%j is refused', (uri) =>
    expect(() => targetOf(uri)).toThrow(TypeError),
  );
});
