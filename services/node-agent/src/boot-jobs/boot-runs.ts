/*
 * Scripts that a guest runs once, at its next boot, and how it says how they went.
 *
 * They come with what cloud-init is told (cloud-init/seed.ts), as a boothook of the vendor-data: that is read at
 * every boot, not only at that of a new instance, and before anything else. All it does is to put the runs where a
 * second script finds them, which cloud-init starts at the end of each boot, when packages, users and the network are there.
 * Nothing of what people wrote is ever part of a shell program of ours: scripts and variables cross it in base64.
 *
 *     begun ──▶ ended: code, output        a run that was begun and has no code was broken off, and is not begun again
 *
 * The answer comes back by a port of its own (virtio-serial), which needs neither a network nor a guest agent and which nobody
 * who looks at the console sees: a line for each run, at each boot for as long as it is asked for, which QEMU appends to a
 * file of the node. That file is the tenant's word: it is read as such, and only about what was asked.
 */
import { type BootResult, type BootRun, BOOT_OUTPUT_MAX } from '@chronovirt/contracts/boot-job/boot-job';
import { BootRunId } from '@chronovirt/contracts/ids';

/** A run with its secrets opened. */
export interface OpenedRun extends Pick<BootRun, 'runId' | 'script' | 'timeoutSeconds'> {
  readonly environment: readonly { readonly name: string; readonly value: string }[];
}

/** Name of the port in the guest. */
export const BOOT_PORT = 'org.chronovirt.boot-jobs.0';

const base64 = (text: string): string => Buffer.from(text, 'utf8').toString('base64');

/** POSIX: between single quotes every character stands for itself. */
const quoted = (text: string): string => `'${text.replaceAll('\'', '\'\\\'\'')}'`;

/** A file that a shell reads, and that holds nothing but assignments. */
export const environmentFile = (environment: OpenedRun['environment']): string => environment.map(({ name, value }) => `export ${name}=${quoted(value)}\n`).join('');

/** Of one boot: each run that was not begun before, one after another; then what is known of all of them. */
const RUNNER = `#!/bin/sh
base=/var/lib/chronovirt/boot-jobs
port=
for name in /sys/class/virtio-ports/*/name; do
  if [ "$(cat "$name" 2>/dev/null)" = ${BOOT_PORT} ]; then port=/dev/$(basename "$(dirname "$name")"); fi
done
umask 077
while read -r run; do
  dir=$base/$run
  if [ ! -e "$dir/code" ]; then
    code=interrupted
    if [ ! -e "$dir/begun" ]; then
      : >"$dir/begun"
      sync
      limit=
      if command -v timeout >/dev/null; then limit="timeout -s KILL $(cat "$dir/seconds")"; fi
      (umask 022; . "$dir/environment"; cd /; exec $limit "$dir/script") </dev/null >"$dir/output" 2>&1
      code=$?
    fi
    echo "$code" >"$dir/code.new"
    mv "$dir/code.new" "$dir/code"
    rm -f "$dir/script" "$dir/environment"
    sync
  fi
  if [ -n "$port" ]; then
    printf '%s %s %s\\n' "$run" "$(cat "$dir/code")" "$(tail -c ${String(BOOT_OUTPUT_MAX)} "$dir/output" 2>/dev/null | base64 | tr -d '\\n')" >>"$port"
  fi
done <"$base/wanted"
rm -f "$base/wanted" "$0"
`;

/** The boothook's part: shell, of nothing but our own words, ids, numbers and base64. */
export const bootRunsHook = (runs: readonly OpenedRun[]): string => `base=/var/lib/chronovirt/boot-jobs
umask 077
mkdir -p "$base" /var/lib/cloud/scripts/per-boot
: >"$base/wanted"
take() {
  echo "$1" >>"$base/wanted"
  [ -e "$base/$1/begun" ] && return
  mkdir -p "$base/$1"
  echo "$2" >"$base/$1/seconds"
  echo "$3" | base64 -d >"$base/$1/environment"
  echo "$4" | base64 -d >"$base/$1/script"
  chmod 700 "$base/$1/script"
}
${runs.map(({ runId, timeoutSeconds, environment, script }) => `take ${runId} ${String(timeoutSeconds)} '${base64(environmentFile(environment))}' '${base64(script)}'\n`).join('')}echo '${base64(RUNNER)}' | base64 -d >/var/lib/cloud/scripts/per-boot/chronovirt-boot-jobs
chmod 700 /var/lib/cloud/scripts/per-boot/chronovirt-boot-jobs
`;

const LINE = /^(run_[0-9a-f]{32}) (\d{1,3}|interrupted) ([A-Za-z0-9+/]{0,8192}={0,2})\r?$/;

/** What a guest has written to its port: of each run the last whole line about it. Anything else is nothing. */
export function resultsIn(written: string): readonly BootResult[] {
  const found = new Map<string, BootResult>();
  for (const line of written.split('\n').slice(0, -1)) {
    const [, run, code = '', output = ''] = LINE.exec(line) ?? [];
    const runId = BootRunId.safeParse(run);
    if (!runId.success || Number(code) > 255) continue;
    const text = Buffer.from(output, 'base64').toString('utf8').toWellFormed().replaceAll('\u0000', '');
    found.set(runId.data, { runId: runId.data, exitCode: code === 'interrupted' ? null : Number(code), output: text.slice(-BOOT_OUTPUT_MAX) });
  }
  return [...found.values()];
}

const HIDDEN = '***';

/** Without secrets, also where the beginning of one is cut off. What a script makes of a secret before it prints it, nobody can know. */
export function withoutSecrets(output: string, secrets: readonly string[]): string {
  const known = [...secrets].filter((secret) => secret !== '').sort((a, b) => b.length - a.length);
  let shown = known.reduce((text, secret) => text.replaceAll(secret, HIDDEN), output);
  for (const secret of known) {
    for (let at = 1; at < secret.length; at++) {
      if (!shown.startsWith(secret.slice(at))) continue;
      shown = `${HIDDEN}${shown.slice(secret.length - at)}`;
      break;
    }
  }
  return shown.slice(-BOOT_OUTPUT_MAX);
}
