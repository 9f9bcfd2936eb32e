/** The columns of a list of VMs as CSV (RFC 4180). */
import type { VmSummary } from './vm-summary.projection.ts';

const columns: Readonly<Record<string, (vm: VmSummary) => string | number | null>> = {
  id: (vm) => vm.id,
  name: (vm) => vm.name,
  description: (vm) => vm.description,
  status: (vm) => vm.status,
  desired: (vm) => vm.desired,
  observed: (vm) => vm.observed?.state ?? null,
  nodeId: (vm) => vm.nodeId,
  address: (vm) => vm.address,
  mac: (vm) => vm.mac,
  vcpus: (vm) => vm.spec.vcpus,
  memoryMib: (vm) => vm.spec.memoryMib,
  diskGib: (vm) => vm.spec.diskGib,
  imageId: (vm) => vm.spec.imageId,
  networkId: (vm) => vm.spec.networkId,
  tags: (vm) => vm.spec.tags.join(' '),
  failure: (vm) => vm.failure?.code ?? null,
  createdAt: (vm) => vm.createdAt,
};

// A cell that begins like a formula is run by spreadsheets: an apostrophe makes it text again.
const cell = (value: string | number | null): string => {
  if (value === null) return '';
  if (typeof value === 'number') return String(value);
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};

export const csvHeader = Object.keys(columns).join(',') + '\r\n';
export const csvRow = (vm: VmSummary): string => Object.values(columns).map((read) => cell(read(vm))).join(',') + '\r\n';
