/*
 * A guest that does nothing but count aloud, ten times a second, on its serial port: whoever reads the port
 * sees whether it ever began anew. It is a kernel and its first root, and starts in two or three seconds.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { archive } from '../tools/guest/archive.ts';

export interface CountingGuest {
  readonly kernel: string;
  readonly initialRoot: string;
  readonly commandLine: string;
  readonly memoryMib: number;
}

const INIT = `#!/bin/sh
mount -t devtmpfs dev /dev
i=0
while true; do i=$((i+1)); echo tick $i > /dev/ttyS0; sleep 0.1; done
`;

/** From the packages in `cache` that the guest image was made of. */
export function countingGuest(cache: string, folder: string): CountingGuest {
  const found = (...paths: readonly string[]): string => {
    const path = readdirSync(cache).flatMap((packages) => paths.map((one) => join(cache, packages, one))).find(existsSync);
    if (path === undefined) throw new Error(`the guest image was built without ${paths.join(' or ')}`);
    return path;
  };
  const kernels = found('boot');
  const kernel = readdirSync(kernels).find((name) => name.startsWith('vmlinuz-'));
  if (kernel === undefined) throw new Error(`no kernel in ${kernels}`);
  const initialRoot = join(folder, 'counting.initrd');
  writeFileSync(initialRoot, archive([
    { path: 'init', kind: 'file', mode: 0o755, content: Buffer.from(INIT) },
    { path: 'dev', kind: 'folder', mode: 0o755 },
    { path: 'bin/busybox', kind: 'file', mode: 0o755, content: readFileSync(found('bin/busybox', 'usr/bin/busybox')) },
    ...['sh', 'mount', 'sleep'].map((name) => ({ path: `bin/${name}`, kind: 'link', mode: 0o777, content: Buffer.from('/bin/busybox') }) as const),
  ]));
  return { kernel: join(kernels, kernel), initialRoot, commandLine: 'console=ttyS0,115200 quiet panic=1 mitigations=off no_timer_check', memoryMib: 96 };
}
