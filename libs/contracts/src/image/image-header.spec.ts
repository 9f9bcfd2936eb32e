import type { ImageFormat } from './image.events.ts';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HEAD_BYTES, readHeader } from './image-header.ts';
import { HOSTILE, qcow2 } from './testing-qcow2.ts';

const read = (file: Buffer, format: ImageFormat = 'qcow2') => readHeader(file.subarray(0, HEAD_BYTES), file.length, format);

describe('A qcow2', () => {
  it('as qemu-img makes it says how large its disk is', () => {
    expect(read(qcow2())).toEqual({ virtualBytes: 2 ** 30 });
    expect(read(qcow2({ version: 2, headerLength: 72 }))).toEqual({ virtualBytes: 2 ** 30 });
    expect(read(qcow2({ incompatible: 8n, compression: 1 }))).toEqual({ virtualBytes: 2 ** 30 });
    expect(read(qcow2({ extensions: [[0x68_03_f8_57, 'x'.repeat(384)]] }))).toEqual({ virtualBytes: 2 ** 30 });
  });
  it.each(HOSTILE)('with %s is refused', (_what, file, code) => { expect(read(file)).toMatchObject({ refused: code }); });
  it('whatever its bytes are is judged, and never names another file when it passes', () => {
    fc.assert(fc.property(fc.array(fc.tuple(fc.nat(0x200), fc.nat(255)), { maxLength: 12 }), (changes) => {
      const file = qcow2({ extensions: [[0x68_03_f8_57, 'x'.repeat(48)]] });
      for (const [at, byte] of changes) file[at] = byte;
      const said = read(file);
      if ('refused' in said) return;
      expect([file.readBigUInt64BE(8), file.readUInt32BE(32), file.readUInt32BE(60)]).toEqual([0n, 0, 0]);
      expect(said.virtualBytes).toBeGreaterThan(0);
      expect(said.virtualBytes).toBeLessThanOrEqual(2 ** 46);
    }), { numRuns: 2_000 });
  });
});

describe('A raw disk', () => {
  it('is any number of sectors', () => { expect(read(Buffer.alloc(1_024, 7), 'raw')).toEqual({ virtualBytes: 1_024 }); });
  it('is no half sector', () => { expect(read(Buffer.alloc(1_000, 7), 'raw')).toMatchObject({ refused: 'image.header_invalid' }); });
  it('does not begin like another format', () => {
    expect(read(qcow2({ bytes: 0x40_000 }), 'raw')).toEqual({ refused: 'image.not_of_format', because: { format: 'raw', looksLike: 'qcow2' } });
    for (const magic of ['QED\0', 'KDMV', 'COWD', '# Disk DescriptorFile', 'vhdxfile', 'conectix', 'LUKS\xba\xbe']) expect(read(Buffer.from(magic.padEnd(512, ' '), 'latin1'), 'raw')).toMatchObject({ refused: 'image.not_of_format' });
  });
});

describe('What a machine is started with', () => {
  it('is a kernel of Linux by its mark, and an initial root by how it is packed', () => {
    const kernel = Buffer.alloc(4_096);
    expect(read(kernel, 'kernel')).toMatchObject({ refused: 'image.not_of_format' });
    kernel.write('HdrS', 0x202, 'latin1');
    expect(read(kernel, 'kernel')).toEqual({ virtualBytes: 4_096 });
    expect(read(kernel, 'initrd')).toMatchObject({ refused: 'image.not_of_format' });
    for (const magic of ['070701', '\x1f\x8b\x08', '\xfd7zXZ\0', '\x28\xb5\x2f\xfd']) expect(read(Buffer.from(magic, 'latin1'), 'initrd')).toEqual({ virtualBytes: magic.length });
  });
});

describe('An ISO', () => {
  it('has its mark at sector 16', () => {
    const file = Buffer.alloc(40_960);
    expect(read(file, 'iso')).toMatchObject({ refused: 'image.not_of_format' });
    file.write('\x01CD001', 0x8000, 'latin1');
    expect(read(file, 'iso')).toEqual({ virtualBytes: 40_960 });
  });
});
