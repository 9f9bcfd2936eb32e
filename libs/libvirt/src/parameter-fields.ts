/*
 * The fields of typed parameters that libvirt's headers name, with their types. Units: bytes, KiB,
 * milliseconds, … as the headers say; repeated here where they surprise.
 */
import { known } from './typed-parameters.ts';

/** VIR_DOMAIN_SCHEDULER_*. Periods and quotas in microseconds; a negative quota is none. */
export const schedulerParameters = known(
  {
    cpu_shares: 'size',
    global_period: 'size',
    global_quota: 'signedSize',
    vcpu_period: 'size',
    vcpu_quota: 'signedSize',
    emulator_period: 'size',
    emulator_quota: 'signedSize',
    iothread_period: 'size',
    iothread_quota: 'signedSize',
    weight: 'u32',
    cap: 'u32',
    reservation: 'signedSize',
    limit: 'signedSize',
    shares: 'i32',
  },
  16,
);

/** VIR_DOMAIN_MEMORY_*, KiB. 9007199254740991 (2^53 - 1) is "no limit". */
export const memoryParameters = known({ hard_limit: 'size', soft_limit: 'size', min_guarantee: 'size', swap_hard_limit: 'size' }, 16);

/** VIR_DOMAIN_BLKIO_*. The texts list devices of the node with a value each: `/dev/sda,500,/dev/sdb,200`. */
export const blkioParameters = known(
  {
    weight: 'u32',
    device_weight: 'string',
    device_read_iops_sec: 'string',
    device_write_iops_sec: 'string',
    device_read_bytes_sec: 'string',
    device_write_bytes_sec: 'string',
  },
  16,
);

/** VIR_DOMAIN_NUMA_*. `numa_mode`: 0 strict, 1 preferred, 2 interleave, 3 restrictive. */
export const numaParameters = known({ numa_nodeset: 'string', numa_mode: 'i32' }, 16);

/** VIR_DOMAIN_BLOCK_IOTUNE_*, bytes and operations for each second; `_max` for `_max_length` seconds. 0 is no limit. */
export const blockIoTune = known(
  {
    total_bytes_sec: 'size',
    read_bytes_sec: 'size',
    write_bytes_sec: 'size',
    total_iops_sec: 'size',
    read_iops_sec: 'size',
    write_iops_sec: 'size',
    total_bytes_sec_max: 'size',
    read_bytes_sec_max: 'size',
    write_bytes_sec_max: 'size',
    total_iops_sec_max: 'size',
    read_iops_sec_max: 'size',
    write_iops_sec_max: 'size',
    total_bytes_sec_max_length: 'size',
    read_bytes_sec_max_length: 'size',
    write_bytes_sec_max_length: 'size',
    total_iops_sec_max_length: 'size',
    read_iops_sec_max_length: 'size',
    write_iops_sec_max_length: 'size',
    size_iops_sec: 'size',
    group_name: 'string',
  },
  32,
);

/** VIR_DOMAIN_BANDWIDTH_* and VIR_NETWORK_PORT_BANDWIDTH_*, KiB for each second; bursts in KiB. 0 is no limit. */
export const bandwidth = known(
  {
    'inbound.average': 'u32',
    'inbound.peak': 'u32',
    'inbound.burst': 'u32',
    'inbound.floor': 'u32',
    'outbound.average': 'u32',
    'outbound.peak': 'u32',
    'outbound.burst': 'u32',
  },
  16,
);

/** VIR_DOMAIN_ANNOUNCE_INTERFACE_*: how often it is told, and how long between, in milliseconds: first, each time so much more, at most. */
export const announceParameters = known({ initial: 'u32', max: 'u32', rounds: 'u32', step: 'u32' }, 16);

/** VIR_DOMAIN_BLOCK_STATS_*: counters since the start; times in nanoseconds. */
export const blockStats = known(
  {
    rd_bytes: 'i64',
    rd_operations: 'i64',
    rd_total_times: 'i64',
    wr_bytes: 'i64',
    wr_operations: 'i64',
    wr_total_times: 'i64',
    flush_operations: 'i64',
    flush_total_times: 'i64',
    errs: 'i64',
  },
  16,
);

/** VIR_DOMAIN_BLOCK_COPY_*: bytes for each second, bytes, bytes. */
export const blockCopyParameters = known({ bandwidth: 'size', granularity: 'u32', 'buf-size': 'size' }, 16);

/** VIR_DOMAIN_IOTHREAD_*. */
export const ioThreadParameters = known({ poll_max_ns: 'size', poll_grow: 'u32', poll_shrink: 'u32', thread_pool_min: 'i32', thread_pool_max: 'i32' }, 64);

/** VIR_PERF_PARAM_*: which events are counted for a guest. */
export const perfEvents = known(
  {
    cmt: 'bool',
    mbmt: 'bool',
    mbml: 'bool',
    cache_misses: 'bool',
    cache_references: 'bool',
    instructions: 'bool',
    cpu_cycles: 'bool',
    branch_instructions: 'bool',
    branch_misses: 'bool',
    bus_cycles: 'bool',
    stalled_cycles_frontend: 'bool',
    stalled_cycles_backend: 'bool',
    ref_cpu_cycles: 'bool',
    cpu_clock: 'bool',
    task_clock: 'bool',
    page_faults: 'bool',
    context_switches: 'bool',
    cpu_migrations: 'bool',
    page_faults_min: 'bool',
    page_faults_maj: 'bool',
    alignment_faults: 'bool',
    emulation_faults: 'bool',
  },
  64,
);

/** VIR_DOMAIN_JOB_*: times in milliseconds, amounts in bytes, rates in bytes for each second. `operation`: virDomainJobOperation. */
export const jobStats = known(
  {
    operation: 'i32',
    time_elapsed: 'size',
    time_elapsed_net: 'size',
    time_remaining: 'size',
    downtime: 'size',
    downtime_net: 'size',
    setup_time: 'size',
    data_total: 'size',
    data_processed: 'size',
    data_remaining: 'size',
    memory_total: 'size',
    memory_processed: 'size',
    memory_remaining: 'size',
    memory_constant: 'size',
    memory_normal: 'size',
    memory_normal_bytes: 'size',
    memory_bps: 'size',
    memory_dirty_rate: 'size',
    memory_page_size: 'size',
    memory_iteration: 'size',
    memory_postcopy_requests: 'size',
    disk_total: 'size',
    disk_processed: 'size',
    disk_remaining: 'size',
    disk_bps: 'size',
    compression_cache: 'size',
    compression_bytes: 'size',
    compression_pages: 'size',
    compression_cache_misses: 'size',
    compression_overflow: 'size',
    auto_converge_throttle: 'i32',
    success: 'bool',
    errmsg: 'string',
    disk_temp_used: 'size',
    disk_temp_total: 'size',
    vfio_data_transferred: 'size',
  },
  64,
);

/** VIR_MIGRATE_PARAM_*: bandwidths in MiB for each second. */
export const migrateParameters = known(
  {
    migrate_uri: 'string',
    destination_name: 'string',
    destination_xml: 'string',
    persistent_xml: 'string',
    bandwidth: 'size',
    'bandwidth.postcopy': 'size',
    graphics_uri: 'string',
    listen_address: 'string',
    migrate_disks: 'strings',
    disks_port: 'i32',
    disks_uri: 'string',
    compression: 'strings',
    'compression.mt.level': 'i32',
    'compression.mt.threads': 'i32',
    'compression.mt.dthreads': 'i32',
    'compression.xbzrle.cache': 'size',
    'auto_converge.initial': 'i32',
    'auto_converge.increment': 'i32',
    'parallel.connections': 'i32',
    'tls.destination': 'string',
    'compression.zlib.level': 'i32',
    'compression.zstd.level': 'i32',
    migrate_disks_detect_zeroes: 'strings',
    'bandwidth.avail.switchover': 'size',
    migrate_disks_target_zero: 'strings',
  },
  64,
);

/** VIR_DOMAIN_SAVE_PARAM_*. `image_format` (11.2.0): raw, gzip, zstd, sparse, …; `parallel.channels` with `sparse`. */
export const saveParameters = known({ file: 'string', dxml: 'string', image_format: 'string', 'parallel.channels': 'i32' }, 64);

/** VIR_DOMAIN_LAUNCH_SECURITY_SEV_*, as the guest was launched. */
export const launchSecurityInfo = known(
  { 'sev-measurement': 'string', 'sev-api-major': 'u32', 'sev-api-minor': 'u32', 'sev-build-id': 'u32', 'sev-policy': 'u32', 'sev-snp-policy': 'u64' },
  64,
);
/** VIR_DOMAIN_LAUNCH_SECURITY_SEV_SECRET*: what is put into a guest that waits for it. */
export const launchSecurityState = known({ 'sev-secret-header': 'string', 'sev-secret': 'string', 'sev-secret-set-address': 'u64' }, 64);
/** VIR_NODE_SEV_*. */
export const sevInfo = known(
  { pdh: 'string', 'cert-chain': 'string', 'cpu0-id': 'string', cbitpos: 'u32', 'reduced-phys-bits': 'u32', 'max-guests': 'u32', 'max-es-guests': 'u32' },
  64,
);

/** VIR_NODE_MEMORY_SHARED_*: the kernel's merging of equal pages. The first two and the last can be set. */
export const nodeMemoryParameters = known(
  {
    shm_pages_to_scan: 'u32',
    shm_sleep_millisecs: 'u32',
    shm_pages_shared: 'size',
    shm_pages_sharing: 'size',
    shm_pages_unshared: 'size',
    shm_pages_volatile: 'size',
    shm_full_scans: 'size',
    shm_merge_across_nodes: 'u32',
  },
  64,
);

/** VIR_CONNECT_IDENTITY_*: on whose behalf a proxy of libvirt's own speaks. */
export const identityParameters = known(
  {
    'user-name': 'string',
    'unix-user-id': 'size',
    'group-name': 'string',
    'unix-group-id': 'size',
    'process-id': 'signedSize',
    'process-time': 'size',
    'sasl-user-name': 'string',
    'x509-distinguished-name': 'string',
    'selinux-context': 'string',
  },
  64,
);

/** virDomainGetGuestVcpus: lists of CPU numbers as text, `0-1,3`. */
export const guestVcpus = known({ vcpus: 'string', online: 'string', offlinable: 'string' }, 64);
