/* infra/: is every service there, with all it needs and nothing it should not have? Each rule is also shown a mistake. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseEnv } from 'node:util';
import { readConfig as readGatewayConfig } from '@chronovirt/api-gateway/config';
import { readConfig as readIpamConfig } from '@chronovirt/ipam/config';
import { readConfig as readMonitorConfig } from '@chronovirt/monitor/config';
import { readConfig as readAgentConfig } from '@chronovirt/node-agent/config';
import { readConfig as readSchedulerConfig } from '@chronovirt/scheduler/config';
import { readConfig as readStorageConfig } from '@chronovirt/storage/config';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { restsOn } from '../infra/pick.ts';
import { makeKeys, places, services as controlPlane } from '../infra/setup.ts';
import {
  at, environmentOf, judgeBySchema, judgeByType, judgeContainer, judgeImages, judgeListening, judgeProbes, judgeSecrets, kubernetesObjects, list, modelOf, podOf, readYaml, stagesOf, withDefaults,
} from './manifests.ts';
import type { KubernetesObject, Loose } from './manifests.ts';
import { REPOSITORY } from './step.ts';

const INFRA = join(REPOSITORY, 'infra');
const text = (file: string): string => readFileSync(join(INFRA, file), 'utf8');
const services = readdirSync(join(REPOSITORY, 'services')).filter((name) => statSync(join(REPOSITORY, 'services', name)).isDirectory());
const dockerfile = text('Dockerfile');
const stages = stagesOf(dockerfile);
const compose = readYaml(text('docker-compose.yml')) as { readonly services: Readonly<Record<string, Loose>> };
const found = kubernetesObjects(join(INFRA, 'k8s'));
const objects = found.map(({ object }) => object);
const named = (kind: string, name: string): KubernetesObject | undefined => objects.find((object) => object.kind === kind && object.metadata.name === name);
const workload = (service: string): KubernetesObject | undefined => named(service === 'node-agent' ? 'DaemonSet' : 'Deployment', `chronovirt-${service}`);
const containersOf = (object: KubernetesObject): readonly Loose[] => [...list(podOf(object)?.['containers']), ...list(podOf(object)?.['initContainers'])];

const readers: Readonly<Record<string, (environment: Readonly<Record<string, string | undefined>>) => unknown>> = {
  'api-gateway': readGatewayConfig, scheduler: readSchedulerConfig, ipam: readIpamConfig, storage: readStorageConfig, monitor: readMonitorConfig,
  'node-agent': (environment) => readAgentConfig({ CV_NODE_AGENT_MACHINE_ID: 'a-machine', ...environment }),
};

const folders = { compose: '', kubernetes: '' };
beforeAll(async () => {
  for (const place of ['compose', 'kubernetes'] as const) {
    folders[place] = mkdtempSync(join(tmpdir(), 'cv-manifests-'));
    await makeKeys(folders[place], places[place]);
  }
});
afterAll(() => {
  for (const folder of Object.values(folders)) rmSync(folder, { recursive: true, force: true });
});

/** What Node reads by --env-file. */
const secretsOf = (place: keyof typeof folders, service: string): Readonly<Record<string, string>> =>
  service === 'node-agent' ? {} : (parseEnv(readFileSync(join(folders[place], service, 'environment'), 'utf8')) as Record<string, string>);

/** ENV of a stage and of the one below it: those with a value. */
const environmentOfStage = (service: string): Readonly<Record<string, string>> =>
  Object.fromEntries((stages.get(service) ?? []).filter((line) => line.startsWith('ENV ')).flatMap((line) => line.slice(4).split(' ').map((pair) => pair.split('=') as [string, string])));

it('there is something to judge', () => {
  expect(services).toEqual(['api-gateway', 'ipam', 'monitor', 'node-agent', 'scheduler', 'storage']);
  expect(objects.length).toBeGreaterThan(25);
});

describe.each(services)('%s', (service) => {
  it('has a stage that runs its main.ts and asks whether it lives', () => {
    const stage = stages.get(service)?.join('\n') ?? '';
    expect(stage).toContain(`CMD ["services/${service}/dist/main.js"]`);
    expect(stage).toContain(`COPY --from=${service}-files /out /app`);
    expect(stages.get(`${service}-files`)?.join('\n')).toMatch(new RegExp(`infra/pick\\.ts /out services/${service}$`, 'm'));
    expect(stages.get('runtime')?.join('\n')).toContain('/livez');
    if (service !== 'node-agent') expect(stage).toContain('USER 10001:10001');
  });

  it('has a compose entry that can be scaled', () => {
    const entry = compose.services[service] ?? {};
    expect(at(entry, 'build', 'target')).toBe(service);
    expect(entry).toMatchObject({ restart: 'unless-stopped', read_only: true, cap_drop: ['ALL'] });
    expect(entry['mem_limit']).toBeDefined();
    expect(entry).not.toHaveProperty('container_name');
    expect(at(entry, 'healthcheck', 'test')).toEqual(['CMD', '/usr/local/bin/health', '8081', service === 'api-gateway' ? '/readyz' : '/livez']);
    // A node needs the gateway, whose health says the rest.
    expect(Object.values(entry['depends_on'] as Loose).map((one) => at(one, 'condition'))).toEqual(expect.arrayContaining(['service_completed_successfully']));
  });

  it('is told by compose all that it asks for', () => {
    const own = compose.services[service]?.['environment'] as Readonly<Record<string, string>>;
    const environment = Object.fromEntries(Object.entries({ ...environmentOfStage(service), ...own }).map(([name, value]) => [name, withDefaults(value)]));
    expect(() => readers[service]?.({ ...environment, ...secretsOf('compose', service) })).not.toThrow();
    expect(judgeSecrets(service, own)).toEqual([]);
  });

  it('has a manifest that tells it all that it asks for', () => {
    const object = workload(service);
    const [container = {}] = object ? containersOf(object) : [];
    const own = environmentOf(container);
    const config = readers[service]?.({ ...own, ...secretsOf('kubernetes', service) });
    // On the pod's own address, where the kubelet asks.
    const said = service === 'node-agent' ? at(config, 'agent') : config;
    expect(said).toMatchObject({ healthHost: '10.1.2.3', healthPort: 8081 });
    expect(JSON.stringify(config)).not.toContain('$(');
    expect(judgeSecrets(service, own)).toEqual([]);
  });

  it('is watched, bounded and spread', () => {
    const object = workload(service);
    const pod = (object && podOf(object)) ?? {};
    const [container = {}] = list(pod['containers']);
    expect([...judgeProbes(service, container), ...judgeContainer(service, pod, container)]).toEqual([]);
    if (service === 'node-agent') return;
    const scaler = named('HorizontalPodAutoscaler', `chronovirt-${service}`);
    expect(Number(at(scaler, 'spec', 'minReplicas') ?? at(object, 'spec', 'replicas'))).toBeGreaterThanOrEqual(2);
    expect(list(pod['topologySpreadConstraints']).length).toBeGreaterThan(0);
    expect(at(named('PodDisruptionBudget', `chronovirt-${service}`), 'spec', 'selector')).toEqual(at(object, 'spec', 'selector'));
  });
});

it('what a service has forgotten to be told is found', () => {
  const object = workload('scheduler');
  const environment = environmentOf(containersOf(object as KubernetesObject)[0] as Loose);
  const { CV_NATS_CREDS: _, ...less } = environment;
  expect(() => readers['scheduler']?.({ ...less, ...secretsOf('kubernetes', 'scheduler') })).toThrow(/CV_NATS_CREDS: is not set/);
  expect(() => readers['scheduler']?.(environment)).toThrow(/CV_SCHEDULER_POSTGRES_URL: is not set/);
});

describe('Kubernetes objects', () => {
  const custom = objects.filter((object) => modelOf(object) === undefined);

  it('are of kinds that Kubernetes knows, but for the Postgres cluster', () => {
    expect(custom.map(({ apiVersion, kind }) => `${apiVersion} ${kind}`)).toEqual(['postgresql.cnpg.io/v1 Cluster']);
  });

  it('are right by its schemas', async () => {
    const known = objects.filter((object) => !custom.includes(object));
    expect((await Promise.all(known.map(judgeBySchema))).flat()).toEqual([]);
  });

  it('have no field that does not exist, and a misspelt one is found', () => {
    const misspelt = structuredClone(workload('ipam')) as { spec: { template: { spec: { containers: Record<string, unknown>[] } } } } & KubernetesObject;
    const [container = {}] = misspelt.spec.template.spec.containers;
    container['readinesProbe'] = container['readinessProbe'];
    // In one go: the compiler reads Kubernetes' types once, which takes a second.
    const complaints = judgeByType([...objects, misspelt], REPOSITORY);
    expect(complaints).toHaveLength(1);
    expect(complaints[0]).toMatch(/^Deployment chronovirt-ipam: .*readinesProbe/);
  }, 30_000);

  it('a wrong value is found', async () => {
    const wrong = { ...structuredClone(workload('ipam') as KubernetesObject), spec: { replicas: 'two' } };
    expect((await judgeBySchema(wrong)).join('\n')).toContain('replicas must be integer');
  });

  it('are all in the kustomization, and every image of ours has its tag there', () => {
    const kustomization = readYaml(text('k8s/kustomization.yaml')) as { readonly resources: readonly string[]; readonly images: readonly Loose[] };
    expect([...kustomization.resources].sort()).toEqual([...new Set(found.map(({ file }) => file))].sort());
    const ours = objects.flatMap(containersOf).map(({ image }) => String(image)).filter((image) => image.startsWith('chronovirt/'));
    expect(kustomization.images.map(({ name, newTag }) => `${String(name)}:${String(newTag)}`).sort()).toEqual([...new Set(ours)].sort());
  });

  it('have names of their own, in a namespace that is made', () => {
    const names = objects.map(({ kind, metadata }) => `${kind} ${metadata.namespace ?? ''}/${metadata.name}`);
    expect(new Set(names).size).toBe(names.length);
    const namespaces = objects.filter(({ kind }) => kind === 'Namespace').map(({ metadata }) => metadata.name);
    expect(objects.filter(({ kind, metadata }) => kind !== 'Namespace' && !namespaces.includes(metadata.namespace ?? ''))).toEqual([]);
  });

  it('name only Secrets that setup makes, that the operator makes, or that are optional; and hold none', () => {
    expect(objects.filter(({ kind }) => kind === 'Secret')).toEqual([]);
    const made = new Set(list((readYaml(readFileSync(join(folders.kubernetes, 'kustomization.yaml'), 'utf8')) as Loose)['secretGenerator']).map(({ name }) => name));
    const asked = new Set<string>();
    const look = (value: unknown): void => {
      if (Array.isArray(value)) return value.forEach(look);
      if (typeof value !== 'object' || value === null) return;
      for (const [key, inner] of Object.entries(value)) {
        if (key === 'secretName' && (value as Loose)['optional'] !== true) asked.add(String(inner));
        if (['secret', 'passwordSecret', 'secretKeyRef'].includes(key) && typeof at(inner, 'name') === 'string') asked.add(String(at(inner, 'name')));
        look(inner);
      }
    };
    look(objects);
    // CloudNativePG makes `<cluster>-ca`.
    expect([...asked].filter((name) => !made.has(name))).toEqual(['chronovirt-postgres-ca']);
    expect([...made].filter((name) => !asked.has(String(name)))).toEqual([]);
  });

  it('every selector finds the pods it means', () => {
    const labels = objects.flatMap((object) => (podOf(object) ? [at(object, 'spec', 'template', 'metadata', 'labels') as Loose] : []));
    const matches = (selector: unknown): boolean => labels.some((own) => Object.entries(selector as Loose).every(([key, value]) => own[key] === value));
    for (const object of objects) {
      if (object.kind === 'Service') expect(matches(at(object, 'spec', 'selector')), object.metadata.name).toBe(true);
      if (object.kind === 'PodDisruptionBudget') expect(matches(at(object, 'spec', 'selector', 'matchLabels')), object.metadata.name).toBe(true);
      if (object.kind === 'HorizontalPodAutoscaler') expect(named('Deployment', String(at(object, 'spec', 'scaleTargetRef', 'name'))), object.metadata.name).toBeDefined();
    }
  });

  it('whatever has pods is bounded, and only the agent is privileged', () => {
    for (const object of objects) {
      const pod = podOf(object);
      if (pod === undefined) continue;
      for (const container of containersOf(object)) {
        expect(judgeContainer(object.metadata.name, pod, container)).toEqual([]);
        expect(at(container, 'securityContext', 'privileged') === true).toBe(object.metadata.name === 'chronovirt-node-agent');
      }
      if (object.metadata.namespace === 'chronovirt') expect(list(pod['volumes']).some((volume) => 'hostPath' in volume)).toBe(false);
    }
  });

  it('nothing is let in or out but what a policy names, in both namespaces', () => {
    for (const namespace of ['chronovirt', 'chronovirt-nodes']) {
      const all = objects.filter(({ kind, metadata }) => kind === 'NetworkPolicy' && metadata.namespace === namespace).find(({ spec }) => JSON.stringify(at(spec, 'podSelector')) === '{}');
      expect(at(all, 'spec', 'policyTypes')).toEqual(['Ingress', 'Egress']);
    }
  });

  it('NATS is three servers that are never on one machine', () => {
    const nats = named('StatefulSet', 'chronovirt-nats');
    expect(nats).toMatchObject({ spec: { replicas: 3, serviceName: 'chronovirt-nats-peers' } });
    expect(at(nats && podOf(nats), 'affinity', 'podAntiAffinity', 'requiredDuringSchedulingIgnoredDuringExecution', 0, 'topologyKey')).toBe('kubernetes.io/hostname');
    expect(named('Service', 'chronovirt-nats-peers')).toMatchObject({ spec: { clusterIP: 'None', publishNotReadyAddresses: true } });
  });

  it('Postgres has a role for every service, and is the version that the tests run on', () => {
    const cluster = named('Cluster', 'chronovirt-postgres');
    expect(list(at(cluster, 'spec', 'managed', 'roles')).map(({ name }) => name)).toEqual(['cv_log', 'cv_owner', ...controlPlane.map(({ role }) => role)]);
    expect(at(cluster, 'spec', 'imageCatalogRef', 'major')).toBe(15);
    expect(String(at(compose.services, 'postgres', 'image'))).toMatch(/^postgres:15\./);
  });
});

describe('images', () => {
  it('are pinned everywhere', () => {
    const composed = Object.values(compose.services).map(({ image }) => String(image));
    const base = /^ARG BASE_IMAGE=(\S+)$/m.exec(dockerfile)?.[1] ?? '';
    expect(judgeImages([...objects.flatMap(containersOf).map(({ image }) => String(image)), ...composed, base])).toEqual([]);
    expect(dockerfile.split('\n').filter((line) => /^FROM /.test(line) && !/^FROM (\$\{BASE_IMAGE\}|build|runtime) AS /.test(line))).toEqual([]);
  });

  it.each(['nats', 'nats:latest', 'nats:alpine', 'chronovirt/ipam'])('%s is not', (image) => {
    expect(judgeImages([image])).toHaveLength(1);
  });

  it('hold the libraries of their service and no other service', () => {
    for (const service of services) {
      const folders = restsOn([`services/${service}`]);
      expect(folders.filter((folder) => folder.startsWith('services/'))).toEqual([`services/${service}`]);
      expect(folders).toContain('libs/contracts');
    }
  });
});

describe('compose', () => {
  it('publishes the gateway on 127.0.0.1, and nothing else', () => {
    const published = Object.entries(compose.services).filter(([, entry]) => 'ports' in entry);
    expect(published.map(([name]) => name)).toEqual(['api-gateway']);
    expect(published[0]?.[1]['ports']).toEqual([expect.stringMatching(/^127\.0\.0\.1:/)]);
    expect(JSON.stringify(compose)).not.toMatch(/"network_mode":"host"|"privileged":true/);
  });

  it('bounds the memory of all, and waits for what each needs', () => {
    for (const [name, entry] of Object.entries(compose.services)) {
      expect(entry['mem_limit'], name).toBeDefined();
      for (const other of Object.keys((entry['depends_on'] ?? {}))) {
        const condition = at(entry, 'depends_on', other, 'condition');
        if (condition === 'service_healthy') expect(compose.services[other], other).toHaveProperty('healthcheck');
        else expect([condition, compose.services[other]?.['restart']], `${name} waits for ${other}`).toEqual(['service_completed_successfully', 'no']);
      }
    }
  });

  it('shows each service its own secrets alone', () => {
    for (const { name } of controlPlane) {
      const shown = (compose.services[name]?.['volumes'] as readonly string[]).filter((volume) => volume.includes('CV_SECRETS_DIR')).map(withDefaults);
      expect(shown).toEqual([`./secrets/${name}:/run/secrets/chronovirt:ro`]);
    }
  });
});

describe('what must never stand in a manifest', () => {
  const files = ['Dockerfile', 'docker-compose.yml', 'docker-compose.kvm.yml', 'nats/nats.conf', ...readdirSync(join(INFRA, 'k8s')).map((file) => `k8s/${file}`)];

  it('is not there', () => {
    expect(files.flatMap((file) => judgeListening(file, text(file)))).toEqual([]);
    for (const [name, entry] of Object.entries(compose.services)) expect(judgeSecrets(name, (entry['environment'] ?? {}) as Loose)).toEqual([]);
    for (const object of objects) for (const container of containersOf(object)) expect(judgeSecrets(object.metadata.name, environmentOf(container))).toEqual([]);
    for (const file of files) expect(text(file)).not.toMatch(/\bS[OAU][A-Z2-7]{56}\b|eyJ[\w-]+\.eyJ/);
  });

  it('is found when it is planted', () => {
    expect(judgeSecrets('x', { POSTGRES_PASSWORD: 'chronovirt' })).toHaveLength(1);
    expect(judgeSecrets('x', { CV_IPAM_POSTGRES_URL: 'postgresql://cv_ipam:hunter2@postgres/chronovirt' })).toHaveLength(1);
    expect(judgeListening('x', 'host: 0.0.0.0')).toHaveLength(1);
    expect(judgeListening('x', '      CV_GATEWAY_HOST: 0.0.0.0\n# not 0.0.0.0')).toEqual([]);
    expect(judgeProbes('x', { livenessProbe: { httpGet: { path: '/', port: 'health' } } })).not.toEqual([]);
    expect(judgeContainer('x', {}, { securityContext: { privileged: true } })).not.toEqual([]);
  });
});

describe('the secrets that setup makes', () => {
  it('are each for one reader, and stay as they are', async () => {
    const before = readFileSync(join(folders.compose, 'api-gateway/environment'), 'utf8');
    await makeKeys(folders.compose, places.compose);
    expect(readFileSync(join(folders.compose, 'api-gateway/environment'), 'utf8')).toBe(before);
    const modes = readdirSync(folders.compose, { recursive: true, encoding: 'utf8' }).map((file) => [file, statSync(join(folders.compose, file)).mode & 0o777] as const).filter(([, mode]) => (mode & 0o077) !== 0);
    // nats-server's file holds signed JWTs, which are not secret, in a folder that is.
    expect(modes).toEqual([['nats/accounts.conf', 0o644]]);
  });

  it('differ between two installations', () => {
    for (const file of ['admin/admin.token', 'setup/passwords.json', 'api-gateway/installation.json', 'ipam/service.creds']) {
      expect(readFileSync(join(folders.compose, file), 'utf8')).not.toBe(readFileSync(join(folders.kubernetes, file), 'utf8'));
    }
  });
});
