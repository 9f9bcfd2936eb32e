import { describe, expect, it } from 'vitest';
import { targetOf } from './target.ts';

const nowhere = { exists: () => false };
const only = (path: string) => ({ exists: (one: string) => one === path });

describe('the URI of a daemon here', () => {
  it.each([
    ['qemu:///system', 'qemu:///system', '/run/libvirt/libvirt-sock'],
    ['test:///default', 'test:///default', '/run/libvirt/libvirt-sock'],
    ['test+unix:///default?socket=/tmp/a/libvirt-sock', 'test:///default', '/tmp/a/libvirt-sock'],
    ['test+unix:///abs/file.xml?socket=/s&mode=legacy', 'test:///abs/file.xml', '/s'],
    ['qemu:///session', 'qemu:///session', `/run/user/${process.getuid?.() ?? 0}/libvirt/libvirt-sock`],
    ['esx:///system?no_verify=1&vpx=2&socket=/s', 'esx:///system?vpx=2', '/s'],
    ['remote:///?socket=/s', '', '/s'],
    ['qemu:///system?name=test:///default', 'test:///default', '/run/libvirt/libvirt-sock'],
    ['qemu:///system?mode=direct', 'qemu:///system', '/run/libvirt/virtqemud-sock'],
    ['storage:///system?mode=direct', 'storage:///system', '/run/libvirt/virtstoraged-sock'],
  ])('%s means the driver %j at %s', (uri, driver, socket) => expect(targetOf(uri, nowhere)).toEqual({ driver, socket }));

  it.each([
    ['qemu', 'virtqemud'],
    ['lxc', 'virtlxcd'],
    ['xen', 'virtxend'],
    ['network', 'virtnetworkd'],
    ['storage', 'virtstoraged'],
    ['interface', 'virtinterfaced'],
    ['nodedev', 'virtnodedevd'],
    ['nwfilter', 'virtnwfilterd'],
    ['secret', 'virtsecretd'],
  ])('of %s means its own daemon where that is the one', (driver, daemon) => {
    const socket = `/run/libvirt/${daemon}-sock`;
    expect(targetOf(`${driver}:///system`, only(socket))).toMatchObject({ socket });
    expect(targetOf(`${driver}:///system?mode=legacy`, only(socket))).toMatchObject({ socket: '/run/libvirt/libvirt-sock' });
    expect(targetOf(`${driver}:///system`, { exists: () => true })).toMatchObject({ socket: '/run/libvirt/libvirt-sock' });
  });

  it('for reading alone has its own socket, but of a session', () => {
    expect(targetOf('qemu:///system', { ...nowhere, readOnly: true })).toMatchObject({ socket: '/run/libvirt/libvirt-sock-ro' });
    expect(targetOf('qemu:///session', { ...nowhere, readOnly: true })).toMatchObject({ socket: expect.stringMatching(/-sock$/) as string });
  });
});

describe('the URI of a daemon elsewhere', () => {
  it.each([
    ['qemu+tcp://node-1/system', 'qemu:///system', { kind: 'tcp', host: 'node-1', port: 16_509 }],
    ['qemu+tcp://[::1]:99/system', 'qemu:///system', { kind: 'tcp', host: '::1', port: 99 }],
    ['test+tcp:///default', 'test:///default', { kind: 'tcp', host: 'localhost', port: 16_509 }],
    ['qemu://node-1/system', 'qemu:///system', { kind: 'tls', host: 'node-1', port: 16_514, verifyServer: true }],
    ['qemu+tls://node-1:5/system?pkipath=/pki&no_verify=1&x=y', 'qemu:///system?x=y', { kind: 'tls', host: 'node-1', port: 5, verifyServer: false, certificates: '/pki' }],
    ['qemu+ssh://node-1/system', 'qemu:///system', { kind: 'ssh', host: 'node-1', proxy: 'auto', mode: 'auto', verifyServer: true, batch: false }],
    [
      'qemu+ssh://ops%40here@node-1:2222/system?command=/opt/ssh&netcat=/bin/nc&socket=/s%20s&keyfile=/k&known_hosts=/h&no_tty=1&no_verify=1&proxy=netcat&mode=direct&pkipath=/not-ours',
      'qemu:///system',
      {
        kind: 'ssh', host: 'node-1', port: 2_222, user: 'ops@here', program: '/opt/ssh', netcat: '/bin/nc', socket: '/s s', keyFile: '/k', knownHostsFile: '/h',
        proxy: 'netcat', mode: 'direct', verifyServer: false, batch: true,
      },
    ],
    ['qemu+ssh://node-1/system?proxy=native', 'qemu:///system', { kind: 'ssh', host: 'node-1', proxy: 'helper', mode: 'auto', verifyServer: true, batch: false }],
    ['qemu+ext:///system?command=/opt/tunnel', 'qemu:///system', { kind: 'program', program: '/opt/tunnel' }],
  ])('%s means the driver %s', (uri, driver, transport) => expect(targetOf(uri)).toEqual({ driver, transport }));
});

it('a file of credentials is for us, and the daemon is not told of it', () => {
  expect(targetOf('qemu+tcp://node-1/system?authfile=/a%20b/auth.conf&x=y')).toEqual({ driver: 'qemu:///system?x=y', authFile: '/a b/auth.conf', transport: { kind: 'tcp', host: 'node-1', port: 16_509 } });
  expect(targetOf('qemu:///system?socket=/s&authfile=/c')).toEqual({ driver: 'qemu:///system', authFile: '/c', socket: '/s' });
});

describe('what is refused', () => {
  it.each([
    ['a word', 'system'],
    ['nothing', ''],
    ['a transport that is none', 'qemu+pigeon://host/system'],
    ['the transports of ssh libraries', 'qemu+libssh2://host/system'],
    ['two transports', 'qemu+tcp+tls://host/system'],
    ['a host for a unix socket', 'qemu+unix://host/system'],
    ['an external program without its name', 'qemu+ext:///system'],
    ['a mode that is none', 'qemu:///system?mode=both'],
    ['a proxy that is none', 'qemu+ssh://host/system?proxy=both'],
    ['a switch that is no number', 'qemu+tls://host/system?no_verify=yes'],
    ['a daemon of its own for a driver that has none', 'test:///default?mode=direct'],
    ['what would weaken TLS if left out', 'qemu+tls://host/system?tls_priority=NORMAL'],
    ['a way of authentication', 'qemu+tcp://host/system?auth=polkit'],
  ])('%s', (_what, uri) => expect(() => targetOf(uri)).toThrow(TypeError));

  it.each(['qemu+ssh://me:hunter2@host/system', 'qemu+pigeon://me:hunter2@host/system', 'qemu+tcp://me:hunter2@[host/system'])('%s is, without saying its password', (uri) => {
    expect(() => targetOf(uri)).toThrow(TypeError);
    expect(() => targetOf(uri)).not.toThrow(/hunter2/);
  });
});
