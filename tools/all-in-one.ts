/*
 * The whole control plane in one process, from the same modules that are processes of their own in
 * production. What is dear is there once: the log with its gathering of commits, its tail, the bus.
 */
import { runService } from '@chronovirt/host/run';
import { startTracing } from '@chronovirt/observability/tracing';

await startTracing('control-plane');
await runService(async () => {
  const { openShared } = await import('@chronovirt/host/host');
  const { readHostConfig } = await import('@chronovirt/host/config');
  // Any service's role may read the log and append to it; each keeps its own tables under its own role.
  const shared = await openShared('control-plane', { ...readHostConfig('scheduler', process.env), healthPort: undefined });
  const running: { close(): Promise<void> }[] = [shared];
  const started = async (service: Promise<{ close(): Promise<void> }>): Promise<void> => { running.push(await service); };

  const [ipam, storage, monitor, scheduler, gateway] = await Promise.all([
    import('@chronovirt/ipam/service'), import('@chronovirt/storage/service'), import('@chronovirt/monitor/service'),
    import('@chronovirt/scheduler/service'), import('@chronovirt/api-gateway/service'),
  ]);
  const config = {
    ipam: await import('@chronovirt/ipam/config'), storage: await import('@chronovirt/storage/config'), monitor: await import('@chronovirt/monitor/config'),
    scheduler: await import('@chronovirt/scheduler/config'), gateway: await import('@chronovirt/api-gateway/config'),
  };
  await Promise.all([
    started(ipam.start(config.ipam.readConfig(), shared)), started(storage.start(config.storage.readConfig(), shared)),
    started(monitor.start(config.monitor.readConfig(), shared)), started(scheduler.start(config.scheduler.readConfig(), shared)),
  ]);
  await started(gateway.start(config.gateway.readConfig(), shared));
  return { close: async () => { for (const one of running.reverse()) await one.close(); } };
});
