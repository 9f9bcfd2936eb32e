/*
 * Jobs that are there after the installation. What one of them does is part of this version of the platform; a VM that
 * was given it has what it was then.
 */
import { hash } from 'node:crypto';
import { BootJobBody, type BootJobWish } from '@chronovirt/contracts/boot-job/boot-job';
import type { BootJobId } from '@chronovirt/contracts/ids';
import type { BootJobDocument } from './boot-job.projection.ts';

/** A name is one stream: two jobs cannot have the same. */
export const bootJobIdOf = (name: string): BootJobId => `job_${hash('sha256', `boot job ${name}`, 'hex').slice(0, 32)}`;

/** Installs words of $PACKAGES by whatever the guest installs with. */
const INSTALL = `set -f
if command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q update
  apt-get -q -y install -- $PACKAGES
elif command -v dnf >/dev/null; then dnf -q -y install -- $PACKAGES
elif command -v zypper >/dev/null; then zypper -q -n install -- $PACKAGES
elif command -v apk >/dev/null; then apk add -q -- $PACKAGES
else echo 'neither apt-get, dnf, zypper nor apk' >&2; exit 1
fi
`;

const wishes: readonly (BootJobWish & { readonly revision: number; readonly system: boolean })[] = [
  {
    revision: 1, system: false,
    ...BootJobBody.parse({
      name: 'install-packages', description: 'Installs packages of the guest\'s distribution',
      variables: [{ name: 'PACKAGES', description: 'Names, with spaces between them', required: true }], timeoutSeconds: 1_800,
      script: `#!/bin/sh\nset -eu\n${INSTALL}`,
    }),
  },
  {
    revision: 1, system: false,
    ...BootJobBody.parse({
      name: 'install-guest-agent', description: 'Installs and starts qemu-guest-agent: passwords and keys of a running VM, and snapshots of quiet file systems, need it', timeoutSeconds: 1_800,
      script: `#!/bin/sh\nset -eu\nPACKAGES=qemu-guest-agent\n${INSTALL}if command -v systemctl >/dev/null; then systemctl start qemu-guest-agent; fi\n`,
    }),
  },
  {
    revision: 1, system: false,
    ...BootJobBody.parse({
      name: 'set-timezone', description: 'Sets the time zone',
      variables: [{ name: 'TIMEZONE', description: 'Such as Europe/Vienna', default: 'Etc/UTC' }],
      script: '#!/bin/sh\nset -eu\nif [ ! -f "/usr/share/zoneinfo/$TIMEZONE" ]; then echo "the guest knows no time zone of that name" >&2; exit 1; fi\nln -sf "/usr/share/zoneinfo/$TIMEZONE" /etc/localtime\nprintf \'%s\\n\' "$TIMEZONE" >/etc/timezone\n',
    }),
  },
  {
    revision: 1, system: false,
    ...BootJobBody.parse({
      name: 'add-swap', description: 'Adds a swap file',
      variables: [{ name: 'SIZE_MIB', type: 'integer', default: 1_024 }],
      script: '#!/bin/sh\nset -eu\nfile=/swapfile\nif [ -e "$file" ]; then echo "there is one already"; exit 0; fi\numask 077\ndd if=/dev/zero of="$file" bs=1048576 count="$SIZE_MIB"\nmkswap "$file"\nswapon "$file"\nprintf \'%s none swap sw 0 0\\n\' "$file" >>/etc/fstab\n',
    }),
  },
  {
    revision: 1, system: true,
    ...BootJobBody.parse({
      name: 'reset-password', description: 'Sets the password of a user, where no guest agent can be asked',
      variables: [{ name: 'USER_NAME', required: true }, { name: 'PASSWORD', required: true, secret: true }],
      script: '#!/bin/sh\nset -eu\nprintf \'%s:%s\\n\' "$USER_NAME" "$PASSWORD" | chpasswd\n',
    }),
  },
];

export const RESET_PASSWORD = 'reset-password';

export const builtInJobs: readonly BootJobDocument[] = wishes.map((wish) => ({ id: bootJobIdOf(wish.name), ...wish, builtIn: true, createdAt: null, changedAt: null, position: 0, version: 0 })).sort((a, b) => (a.id < b.id ? -1 : 1));
