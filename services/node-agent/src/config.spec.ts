import { describe, expect, it } from 'vitest';
import { readConfig } from './config.ts';

const enough = {
  CV_NODE_AGENT_GATEWAY_URL: 'http://127.0.0.1:8080/', CV_NODE_AGENT_STATE_DIR: '/var/lib/cv', CV_NODE_AGENT_MACHINE_ID: 'm-1', CV_NODE_AGENT_NAME: 'one',
  CV_NODE_AGENT_IMAGE_DIR: '/images', CV_NODE_AGENT_POOL_DIR: '/pool', CV_NODE_AGENT_RUN_DIR: '/run/cv',
};

describe('The configuration of an agent', () => {
  it('has a default wherever a laptop can have one', () => {
    expect(readConfig(enough)).toEqual({
      kind: 'agent',
      agent: {
        gatewayUrl: 'http://127.0.0.1:8080', stateDir: '/var/lib/cv', bootIdFile: '/proc/sys/kernel/random/boot_id', joinTokenFile: undefined, machineId: 'm-1', name: 'one', natsUrl: undefined, natsCaFile: undefined,
        healthPort: undefined, healthHost: '127.0.0.1', logLevel: 'info',
        hypervisor: { kind: 'qemu', socket: '/run/libvirt/libvirt-sock', inFlightMax: 4, imageDir: '/images', imageKeepMs: 3_600_000, poolDir: '/pool', poolRoots: [], runDir: '/run/cv', backupDirs: {} },
      },
    });
  });

  it('tells everything that is wrong at once, by name', () => {
    expect(() => readConfig({ CV_NODE_AGENT_GATEWAY_URL: 'gopher://x', CV_NODE_AGENT_HEALTH_PORT: '99999' }))
      .toThrow(/GATEWAY_URL: .*\n.*STATE_DIR: is not set\n.*HEALTH_PORT: /);
    const { CV_NODE_AGENT_IMAGE_DIR: _images, CV_NODE_AGENT_POOL_DIR: _pool, CV_NODE_AGENT_MACHINE_ID: _machine, ...less } = enough;
    expect(() => readConfig({ ...less, CV_NODE_AGENT_RUN_DIR: `/${'x'.repeat(70)}` }, '/nowhere/machine-id'))
      .toThrow(/IMAGE_DIR: is not set\n.*POOL_DIR: is not set\n.*RUN_DIR: must have at most 65 bytes.*\n.*MACHINE_ID: .*systemd-machine-id-setup/);
  });

  it('needs no folders for a simulated node', () => {
    const read = readConfig({ CV_NODE_AGENT_GATEWAY_URL: 'http://h', CV_NODE_AGENT_STATE_DIR: '/s', CV_NODE_AGENT_MACHINE_ID: 'sim-1', CV_NODE_AGENT_HYPERVISOR: 'simulated', CV_NODE_AGENT_SIMULATED_CPUS: '3' });
    expect(read.kind === 'agent' && read.agent.hypervisor).toMatchObject({ kind: 'simulated', simulated: { cpus: 3 } });
  });

  it('lets only simulated nodes share a process', () => {
    expect(() => readConfig({ ...enough, CV_NODE_AGENT_FLEET: '10' })).toThrow(/CV_NODE_AGENT_HYPERVISOR=simulated\n.*FLEET_TOKEN_FILE: is not set/);
    const read = readConfig({ ...enough, CV_NODE_AGENT_HYPERVISOR: 'simulated', CV_NODE_AGENT_FLEET: '10', CV_NODE_AGENT_FLEET_TOKEN_FILE: '/t' });
    expect(read).toMatchObject({ kind: 'fleet', fleet: { count: 10, tokenFile: '/t' } });
  });

  it('lets no agent be held at a waypoint but in a test', () => {
    expect(() => readConfig({ ...enough, CV_WAYPOINTS: '/waypoints' })).toThrow(/CV_WAYPOINTS: is for tests/);
    const read = readConfig({ ...enough, CV_WAYPOINTS: '/waypoints', CV_TEST: '1' });
    expect(read.kind === 'agent' && read.agent.waypoints).toBe('/waypoints');
  });
});
