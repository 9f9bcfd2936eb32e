/*
 * The memory of machines that rest, a file each, beside their disks: libvirt's own format.
 *
 * What was in memory goes with the disks as they were at that moment. Whoever starts the machine by hand, without
 * it, writes them; going on from it afterwards would tear its file systems apart. libvirt ends such a file after
 * it has told QEMU to write everything, and QEMU writes no more then; so a disk that is newer than the file was
 * written by somebody else, and the file is worth nothing.
 */
import { open, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { VmId } from '@chronovirt/contracts/ids';
import type { Saves } from './host.ts';

/** How a file begins that is whole (QEMU_SAVE_MAGIC of libvirt's qemu_saveimage.h; one that is being written says LibvirtQemudPart), or that the test driver wrote (TEST_SAVE_MAGIC of its test_driver.c). */
const WHOLE = { qemu: 'LibvirtQemudSave', test: 'TestGuestMagic' } as const;

export const savesIn = (poolDir: string, driver: keyof typeof WHOLE): Saves => {
  const whole = WHOLE[driver];
  const pathOf = (vmId: VmId): string => join(poolDir, `${vmId}.save`);
  return {
    pathOf,
    holds: async (vmId, disks) => {
      const file = await open(pathOf(vmId)).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
        throw error;
      });
      if (file === undefined) return false;
      try {
        const { buffer, bytesRead } = await file.read(Buffer.alloc(whole.length), 0, whole.length, 0);
        if (buffer.toString('latin1', 0, bytesRead) !== whole) return false;
        const { mtimeMs } = await file.stat();
        const written = await Promise.all((await disks()).map((disk) => stat(disk).then((found) => found.mtimeMs, () => Infinity)));
        return written.every((at) => at <= mtimeMs);
      } finally {
        await file.close();
      }
    },
    drop: (vmId) => rm(pathOf(vmId), { force: true }),
  };
};
