/*
 * From refusals to statuses, in one table.
 *
 * A code is '<aggregate>.<reason>' and stable; clients rely on it, never on the sentence. Codes that need
 * their own status are named; others follow from their reason, because 'not_found' means the same for every
 * aggregate. What no rule knows is a conflict with the present state: the request was well-formed and
 * understood, and its receiver said no.
 */

/** RFC 9457, with a stable code and every bad field. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: string;
  /** What the caller needs to understand a refusal; absent where there is nothing to say. */
  readonly because?: unknown;
  /** One for each bad field; the path is a JSON path such as `body.memoryMib` or `query.limit`. */
  readonly errors?: readonly BadField[];
}

export interface BadField {
  readonly path: string;
  readonly code?: string;
  readonly message: string;
}

const byCode: Readonly<Record<string, number>> = {
  'request.malformed': 400,
  'request.broken_json': 400,
  'request.empty_body': 400,
  'request.bad_uri': 400,
  'request.too_large': 413,
  'request.headers_too_large': 431,
  'request.content_type': 415,
  'request.not_acceptable': 406,
  'request.timeout': 408,
  'request.range_not_satisfiable': 416,
  'auth.signature_expired': 401,
  'auth.signature_unknown': 401,
  'image.no_store': 503,
  'image.not_stored': 409,
  'image.no_family': 422,
  'image.store_full': 507,
  'image.content_not_found': 404,
  'image.header_invalid': 422,
  'image.has_backing_file': 422,
  'image.has_data_file': 422,
  'image.has_snapshots': 422,
  'image.encrypted': 422,
  'image.damaged': 422,
  'image.unknown_features': 422,
  'image.not_of_format': 422,
  'image.too_large_inside': 422,
  'image.checksum_mismatch': 422,
  'image.url_not_allowed': 422,
  'image.download_failed': 422,
  'upload.too_large': 413,
  'upload.too_long': 413,
  'upload.too_many': 503,
  'upload.other_version': 412,
  'upload.not_expected': 403,
  'upload.chunk_damaged': 460, // tus 1.0: Checksum Mismatch
  'route.not_found': 404,
  'route.method_not_allowed': 405,
  'gateway.unavailable': 503,
  'gateway.no_answer': 503,
  'gateway.overloaded': 503,
  'gateway.too_many_listeners': 503,
  'gateway.bug': 500,
  'gateway.stopping': 503,
  'gateway.gone': 503,
  'node.no_answer': 503,
  'node.silent': 503,
  'node.stopping': 503,
  'node.fault': 503,
  'node.too_many_lines': 503,
  'line.silent': 503,
  'line.lost': 503,
  'line.unknown': 503,
  'line.closed': 503,
  'line.stalled': 408,
  'console.idle': 408,
  'console.client_gone': 408,
  'console.origin_refused': 403,
  'console.password_refused': 403,
  'idempotency.key_reused': 409,
  'precondition.failed': 412,
  'image.unknown': 422,
  'network.unknown': 422,
  'node.unknown': 422,
  'image.needs_more_disk': 422,
  'image.needs_more_memory': 422,
  'image.is_a_medium': 422,
  'image.no_medium': 422,
  'device.not_on_node': 422,
  'vm.device_not_found': 404,
  'image.other_format': 422,
  'drift.no_such_policy': 422,
  'foreign.needs_a_name': 422,
  'vm.adopted': 422,
  'vm.nothing_to_boot': 422,
  'vm.more_than_max': 422,
  'vm.disk_cannot_shrink': 422,
  'vm.no_cloud_init': 422,
  'boot_job.no_cloud_init': 422,
  'boot_job.of_adopted': 422,
  'domain.needs_kvm': 422,
  'boot_job.not_pending': 404,
  'vm.no_image': 422,
  'vm.nic_not_found': 404,
  'vm.volume_not_found': 404,
  'vm.volumes_in_snapshots': 409,
  'backup.needs_network': 422,
  'backup.no_target': 422,
  'backup.target_unknown': 422,
  'backup.which_target': 422,
  'volume.smaller_than_source': 422,
  'volume.size_missing': 422,
  'volume.found_as_it_is': 422,
  'drift.no_disk': 422,
  'volume.raw_not_compressed': 422,
  'snapshot.internal': 422,
  'disk.not_qcow2': 422,
  'pool.not_on_node': 422,
  'subnet.prefix_not_supported': 422,
  'subnet.address_outside': 422,
  'join_token.not_found': 401,
  'join_token.expired': 401,
  'join_token.redeemed': 409,
};

const byReason: Readonly<Record<string, number>> = {
  not_found: 404,
  unknown: 422,
  too_small: 422,
  invalid: 422,
  token_missing: 401,
  token_malformed: 401,
  token_of_another_installation: 401,
  token_unknown: 401,
  token_revoked: 401,
  contention: 503,
};

export const statusOfCode = (code: string): number => byCode[code] ?? byReason[code.slice(code.indexOf('.') + 1)] ?? 409;

const titles: Readonly<Record<number, string>> = {
  400: 'The request is malformed',
  401: 'Not authenticated',
  403: 'Not allowed',
  404: 'Not found',
  405: 'Method not allowed',
  406: 'Not acceptable',
  408: 'The request took too long',
  409: 'Not possible now',
  412: 'It has changed since',
  413: 'The request is too large',
  415: 'Unsupported content type',
  416: 'There is no such range',
  422: 'The request cannot be carried out',
  431: 'The headers are too large',
  460: 'The checksum does not match',
  500: 'A mistake of ours',
  503: 'Not available now',
  507: 'No space is left',
};

type Because = Readonly<Record<string, unknown>>;
const word = (value: unknown): string => (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : JSON.stringify(value ?? null));

/** Sentences for people, where the code alone does not say enough. They may change; codes do not. */
const sentences: Readonly<Record<string, (because: Because) => string>> = {
  'precondition.failed': (b) => {
    const fields = Object.keys((b['changed'] ?? {}));
    const what = fields.length === 0 ? '' : `: ${fields.slice(0, 5).join(', ')}${fields.length > 5 ? ` and ${String(fields.length - 5)} more fields` : ''}`;
    return `It is not as you have seen it: you know version ${word(b['expected'])}, this is version ${word(b['version'])}${what}. Nothing was done.`;
  },
  'image.in_use': (b) => `The image is needed by ${everyVm(b)}: delete them or eject it first.`,
  'subnet.in_use': (b) => `The network is used by ${everyVm(b)}: delete them or take their interfaces away first.`,
  'node.in_use': (b) => `There are VMs on the node: ${everyVm(b)}. Delete them first, or remove it with force=true when it is lost.`,
  'vm.busy': (b) => `Another operation has this VM in hand: ${word(b['kind'])} ${word(b['operationId'])}${typeof b['endsBy'] === 'string' ? `, which ends by ${b['endsBy']} at the latest` : ''}.`,
  'vm.clean_up_owed': (b) => `What an earlier action may have left on node ${word(b['nodeId'])} is not settled yet: it is as soon as the node is heard again.`,
  'vm.not_found': () => 'There is no such VM.',
  'vm.not_stopped': (b) => `The VM is ${word(b['state'])}: ${typeof b['hint'] === 'string' ? b['hint'] : 'stop it first, or delete it with force=true'}.`,
  'vm.not_running': (b) => `The VM is ${word(b['state'])}, not running${typeof b['hint'] === 'string' ? `: ${b['hint']}` : ''}.`,
  'vm.no_cloud_init': () => 'The VM was made without cloud-init: only the guest agent of a running VM could tell it its host name.',
  'vm.moved': () => 'The VM has moved to another node meanwhile: ask again.',
  'guest.no_agent': () => 'No guest agent answers in the VM: nothing was changed. Install qemu-guest-agent in it, or wait until it has started; a password can also be set while it is stopped.',
  'guest.no_answer': () => 'The guest agent did not answer in time: whether it was done is not known.',
  'guest.refused': () => 'The guest agent could not do it: there may be no such user, or the system may not have what it needs.',
  'guest.password_too_long': (b) => `Offline a password may have ${word(b['bytesMax'])} bytes.`,
  'guest.no_such_user': (b) => `There is no user ${word(b['user'])} in the disks of the VM.`,
  'guest.no_passwords': () => 'The system in the disks of the VM keeps no passwords that could be set from outside.',
  'guest.disks_not_opened': (b) => `What is in the disks of the VM could not be opened, and nothing was changed: ${word(b['says'])}`,
  'node.no_guestfish': () => 'The node has no guestfish to open disks with: apt-get install guestfish there, or set the password by the guest agent or at the next boot.',
  'node.cannot_unseal': () => 'The node has another key than the one that was used: it has joined again meanwhile. Ask again.',
  'node.no_seal_key': () => 'The node of the VM takes no secrets.',
  'vm.not_provisioned': () => 'The VM was never built: delete it.',
  'vm.protected': () => 'The VM is protected against deletion.',
  'vm.disk_cannot_shrink': (b) => `The disk has ${word(b['diskGib'])} GiB and can only grow.`,
  'vm.nothing_to_boot': () => 'There is nothing to boot from: give it an image, a medium, a kernel, or the network in its boot order.',
  'vm.more_than_max': () => 'It cannot have more than the most it may have.',
  'vm.nic_in_network': (b) => `The VM has an interface in the network ${word(b['network'])} already.`,
  'vm.first_nic': () => 'The first interface stays with the VM.',
  'vm.nic_not_found': (b) => `The VM has no interface ${word(b['mac'])}.`,
  'vm.volume_not_found': (b) => `The VM has no disk ${word(b['volumeId'])}.`,
  'vm.saved': (b) => `The VM is saved, and what it has in memory belongs to the machine and its disks as they are: ${word(b['hint'])}.`,
  'vm.no_image': () => 'The VM was made without an image: there is nothing to make its disk anew from.',
  'vm.has_snapshots': (b) => `The VM has snapshots, which hold what its disk was: ${word(b['snapshots'])}. Delete them first.`,
  'vm.expired': (b) => `The time until which the VM was wanted is over (${word(b['expiresAt'])}): ${word(b['hint'])}.`,
  'vm.paused': () => 'The VM is paused, and its guest could not let go: resume it first, or stop it.',
  'vm.system_disk': () => 'The disk that the VM was made with stays with it.',
  'vm.volumes_in_snapshots': () => 'Disks that stay when the VM goes are part of its snapshots: delete the snapshots first, or the disks would be left in pieces; or delete the disks with it (deleteDisks=true).',
  'snapshot.not_found': () => 'The VM has no such snapshot.',
  'snapshot.of_adopted': (b) => `The VM was adopted, and no VM could be made after it: ${word(b['says'])}. Publish the snapshot as an image, or copy its disks.`,
  'snapshot.needs_network': () => 'The VM was adopted with interfaces of its own: say in which network the new one shall be.',
  'snapshot.name_taken': (b) => `The VM has a snapshot called ${word(b['name'])} already.`,
  'snapshot.too_many': (b) => `The VM has ${word(b['max'])} snapshots: delete one first.`,
  'snapshot.only_stopped': (b) => `The VM is ${word(b['state'])}: an internal snapshot is taken and deleted only while it is stopped. One of kind external can be taken while it runs.`,
  'snapshot.other_kind': (b) => `The VM has snapshots of the other kind, which do not mix with one of kind ${word(b['kind'])}: ${word(b['snapshots'])}. Delete them first.`,
  'snapshot.internal': () => 'The snapshot is kept inside of the files of the disks, and cannot be read beside what they hold now: go back to it, then copy the disks of the stopped VM.',
  'snapshot.missing_on_node': (b) => `The file of the disk ${word(b['volumeId'])} holds the snapshot no more: somebody has deleted it by hand. Nothing was changed.`,
  'disk.not_qcow2': (b) => `The disk ${word(b['volumeId'])} is raw, which has no place for a snapshot inside: convert it, or take a snapshot of kind external.`,
  'volume.in_internal_snapshot': (b) => `The disk keeps its size while it has internal snapshots: ${word(b['snapshots'])}. Delete them first.`,
  'snapshot.vm_not_stopped': (b) => `The VM is ${word(b['state'])}: stop it first. What its disks hold now is lost then, unless you take a snapshot of that, too.`,
  'snapshot.disks_changed': () => 'The VM has other disks than when the snapshot was taken: detach those that came since.',
  'volume.in_snapshot': (b) => `The volume is part of snapshots of its VM: ${word(b['snapshots'])}. Delete them first.`,
  'volume.not_found': () => 'There is no such volume.',
  'volume.attached': (b) => `The VM ${word(b['vmId'])} has this volume: detach it first.`,
  'volume.unknown': (b) => `There is no volume ${word(b['volumeId'])}.`,
  'volume.name_taken': (b) => `The name ${word(b['name'] ?? '')} is taken.`,
  'volume.busy': (b) => `Another operation has this volume in hand: ${word(b['kind'])} ${word(b['operationId'])}.`,
  'volume.failed': () => 'The volume could not be made, or only a part of it is left: delete it.',
  'volume.dirty': (b) => `Work on the volume was broken off, and node ${word(b['nodeId'])} has yet to see to what is left of it.`,
  'volume.smaller_than_source': (b) => `What it is copied from has ${word(b['sourceGib'])} GiB: it cannot be smaller.`,
  'volume.found_as_it_is': (b) => `What somebody has put there becomes the volume as it is and where it lies: leave out ${word(b['field'])}.`,
  'volume.file_gone': (b) => `The file ${word(b['file'])} does not lie in the pool any more.`,
  'volume.file_elsewhere': (b) => `The file ${word(b['file'])} has ${word(b['names'])} names (hard links): whoever has another one would write into the volume.`,
  'volume.file_changed': (b) => `The file ${word(b['file'])} is not what it was when it was found: ${word(b['says'])}.`,
  'volume.size_missing': () => 'A volume that is no copy of another needs a size.',
  'volume.raw_not_compressed': () => 'Only qcow2 can be compressed: convert the volume first.',
  'snapshot.changed': () => 'The snapshot was changed or deleted while it was being copied: nothing was made. Ask again.',
  'disk.smaller_than_source': (b) => `What it is copied from does not fit into ${word(b['sizeGib'])} GiB.`,
  'disk.missing_on_node': (b) => `The disk ${word(b['volumeId'])} is not where its node keeps disks.`,
  'pool.unknown': (b) => `There is no pool ${word(b['pool'] ?? b['poolId'])}.`,
  'pool.not_found': () => 'There is no such pool.',
  'pool.name_taken': (b) => `The name ${word(b['name'] ?? '')} is taken.`,
  'pool.busy': (b) => `Another operation has this pool in hand: ${word(b['work'])} ${word(b['operationId'])}.`,
  'pool.of_node': () => 'Each node has this pool for as long as it is a node: it is neither stopped nor deleted.',
  'pool.failed': () => 'The pool could not be made: delete it.',
  'pool.stopped': (b) => `The pool is ${word(b['status'])}, not active: start it first.`,
  'pool.in_use': (b) => `Disks in the pool are in use: ${everyVolume(b)}.`,
  'pool.nearly_full': (b) => `${word(b['usedPercent'])} % of the pool is really used, and nothing new is put there from ${word(b['fullPercent'])} % on.`,
  'pool.outside_roots': (b) => `The node makes pools only below ${Array.isArray(b['roots']) && b['roots'].length > 0 ? b['roots'].join(', ') : 'folders that it is configured with, and it has none'} (CV_NODE_AGENT_POOL_ROOTS).`,
  'pool.no_folder': (b) => `A part of ${word(b['path'])} is a link, or no folder.`,
  'pool.path_in_use': (b) => `${word(b['path'])} is a pool already.`,
  'pool.not_the_same': (b) => `What was written into the pool is not found in ${word(b['path'])}: it is another folder on this node, or not mounted.`,
  'pool.ambiguous': (b) => `Several nodes have a pool called ${word(b['pool'])}: name the node too, or the pool by its id.`,
  'pool.not_on_node': (b) => `The node ${word(b['nodeId'])} does not see the pool ${word(b['poolId'])}.`,
  'pool.no_space': (b) => `The pool has ${word(b['freeGib'])} GiB left to promise, and ${word(b['sizeGib'])} GiB are asked for.`,
  'volume.deleting': () => 'The volume is being deleted.',
  'volume.elsewhere': (b) => `The volume is on node ${word(b['nodeId'])}, and the VM is not.`,
  'disk.not_released': () => 'The guest did not let go of the disk in time: unmount it there, or stop the VM.',
  'nic.not_released': () => 'The guest did not let go of the interface in time: stop the VM, or try again.',
  'request.timeout': () => 'The request did not arrive in time.',
  'auth.signature_expired': (b) => `The clocks of the node and the gateway are ${word(b['skewSeconds'])} seconds apart: set them right.`,
  'auth.signature_unknown': () => 'This is not signed by a node of this installation.',
  'image.store_full': (b) => (typeof b['says'] === 'string' ? `${b['says']}.` : `There is no room for ${word(b['bytes'])} bytes more: ${word(b['usedBytes'])} of ${word(b['bytesMax'])} are taken. Delete images, or ask whoever runs the platform for more.`),
  'image.not_stored': () => 'Its bytes are files on the nodes: the control plane has none of them.',
  'image.no_family': () => 'The image is no version of anything: it has no family.',
  'image.content_not_found': () => 'The store has nothing with this sum.',
  'image.header_invalid': (b) => `The file is no sound image: ${word(b['says'])}.`,
  'image.has_backing_file': () => 'The image stands on another file: make it whole with qemu-img convert first.',
  'image.has_data_file': () => 'The image keeps its data in another file: make it whole with qemu-img convert first.',
  'image.has_snapshots': () => 'The image has snapshots inside: take them out with qemu-img convert first.',
  'image.encrypted': () => 'The image is encrypted, and nobody here has its key.',
  'image.damaged': () => 'The image was not closed well or is damaged: mend it with qemu-img check -r all first.',
  'image.unknown_features': () => 'The image uses features that are not known here, so nobody can say what they would do: make it anew with qemu-img convert.',
  'image.not_of_format': (b) => `The file is not of format ${word(b['format'])}${typeof b['looksLike'] === 'string' ? `: it looks like ${b['looksLike']}` : ''}.`,
  'image.too_large_inside': (b) => `The image is a disk of ${word(b['virtualGib'])} GiB, and a disk has ${word(b['maxGib'])} GiB at most.`,
  'image.checksum_mismatch': (b) => `The bytes have the SHA-256 ${word(b['found'])}, and ${word(b['sha256'])} was said.`,
  'image.url_not_allowed': (b) => `Nothing is fetched from ${word(b['host'])}: ${word(b['says'])}. Whoever runs the platform can allow a network by CV_GATEWAY_IMPORT_NETWORKS.`,
  'image.download_failed': (b) => `It could not be fetched from ${word(b['host'])}: ${word(b['says'])}.`,
  'upload.not_found': () => 'There is no such upload: it was never begun, was taken away, or its time was over.',
  'upload.complete': () => 'All of it has come: it is an image by now, or is becoming one.',
  'upload.not_complete': (b) => `${word(b['offset'])} of ${word(b['length'])} bytes have come.`,
  'upload.other_offset': (b) => `It goes on at ${word(b['offset'])}, not at ${word(b['given'])}.`,
  'upload.too_large': (b) => `An image may have ${word(b['bytesMax'])} bytes.`,
  'upload.too_long': (b) => `More bytes came than the ${word(b['length'])} that were announced.`,
  'upload.too_many': (b) => `${word(b['parts'])} uploads are under way, and more may not be: wait for one, or take one away.`,
  'upload.other_version': () => 'This is spoken by tus 1.0.0: send the header Tus-Resumable.',
  'upload.not_expected': () => 'No operation waits for bytes of this node.',
  'upload.chunk_damaged': () => 'These bytes do not have the sum that was said: send them again.',
  'image.is_a_medium': (b) => `The image ${word(b['image'])} is a medium for the drive, not a disk.`,
  'image.no_medium': (b) => `The image ${word(b['image'])} is a disk, not a medium (format iso).`,
  'device.taken': (b) => `The device ${word(b['device'])} of that node belongs to the VM ${word(b['vmId'])}.`,
  'device.not_on_node': (b) => `The node of the VM has no device ${word(b['device'])} that it could lend: GET /v1/nodes/:id lists those that it has.`,
  'device.not_released': (b) => `The guest did not let go of the device ${word(b['device'])}: stop the VM, or try again.`,
  'vm.device_attached': (b) => `The VM has the device ${word(b['device'])} already.`,
  'vm.device_not_found': (b) => `The VM has no device ${word(b['device'])}.`,
  'vm.too_many_devices': (b) => `A VM has at most ${word(b['max'])} such devices.`,
  'vm.pinned': (b) => `The VM has devices of its node, which cannot be put to rest: ${word(b['devices'])}. Take them away first.`,
  'image.other_format': (b) => `The image ${word(b['image'])} is of format ${word(b['format'])}; here one of format ${word(b['wanted'])} is needed.`,
  'backup_policy.not_found': () => 'There is no such policy of backups.',
  'backup.not_found': () => 'There is no such backup.',
  'backup.of_adopted': (b) => `The VM was adopted, and no VM could be made again of a backup of it: ${word(b['says'])}. Take snapshots, or copy its disks.`,
  'backup.needs_network': () => 'The VM was adopted with interfaces of its own, so the backup names no network: say in which the new VM is to be.',
  'backup.no_target': (b) => `The node ${word(b['nodeId'])} sees no folder for backups: name one that is there in its CV_NODE_AGENT_BACKUP_DIRS, and start its agent again; its log says what is wrong with those that are named.`,
  'backup.target_unknown': (b) => `The node ${word(b['nodeId'])} sees no backup target ${word(b['target'])}.`,
  'backup.which_target': (b) => `There are several backup targets: ${word(b['targets'])}. Name one.`,
  'backup.target_missing': () => 'The node does not see the backup target now: is it mounted?',
  'backup.not_incremental': (b) => `It cannot be incremental: ${word(b['because'])}.`,
  'backup.needed': (b) => `Others build on this backup: ${word(b['by'])}. Delete them first.`,
  'backup.being_taken': (b) => `The backup is being taken${b['operationId'] === undefined ? '' : ` by ${word(b['operationId'])}`}.`,
  'backup.deleting': () => 'The backup is being deleted.',
  'backup.damaged': (b) => `The backup ${word(b['backupId'])} is damaged, ${word(b['file'])}: ${word(b['says'])}. Nothing was made of it.`,
  'drill.not_seen': (b) => `The machine made of it was not seen to come up within ${word(b['seconds'])} s: ${word(b['says'])}.`,
  'backup.failed': (b) => `The hypervisor could not take the backup: ${word(b['says'])}.`,
  'backup.too_many': (b) => `The VM has ${word(b['max'])} backups: delete some first.`,
  'console.in_use': () => 'Somebody has this serial console open: one at a time can.',
  'console.no_screen': (b) => `There is no screen: ${word(b['says'])}.`,
  'console.token_unknown': () => 'This token lets nobody in: it was never issued, was used, or is older than a minute. Ask for another console.',
  'console.origin_refused': () => 'A page of this origin may not open consoles here: name it in CV_GATEWAY_CONSOLE_ORIGINS.',
  'node.no_answer': (b) => `The agent of node ${word(b['nodeId'])} did not answer in time.`,
  'node.silent': (b) => `Node ${word(b['nodeId'])} is silent: what runs there cannot be seen until it is heard again.`,
  'node.too_many_lines': (b) => `Too many look at this node: ${word(b['most'])} at once can.`,
  'node.fault': () => 'The node could not do it; the log of its agent says why.',
  'foreign.not_found': (b) => `The node has found no such domain that is not ours: ${word(b['uuid'])}.`,
  'foreign.cannot_be_adopted': (b) => `The domain cannot be adopted as it is: ${Array.isArray(b['obstacles']) ? b['obstacles'].map(word).join('; ') : word(b['obstacles'])}.`,
  'foreign.needs_a_name': (b) => `The name of the domain, ${word(b['name'])}, is none that a VM may have: give it another.`,
  'foreign.changed': (b) => `The domain is not any more as it was found: ${word(b['says'])}.`,
  'vm.adopted': (b) => `The VM was adopted and keeps its own machine: ${word(b['fields'])} cannot be changed.`,
  'domain.no_drive': () => 'The VM runs and has no drive for media: stop it first, and it gets one.',
  'domain.boots_kernel': () => 'The definition of the VM names a kernel, which starts whatever the boot order is.',
  'domain.definition_lost': () => 'The VM was adopted, and its definition is gone from the node: define it again there as it was.',
  'domain.needs_kvm': (b) => `The CPU ${word(b['model'])} needs KVM, which the node has not: ${word(b['says'])}.`,
  'console.password_refused': () => 'The password of the screen is wrong.',
  'boot_job.not_found': () => 'There is no such boot job.',
  'boot_job.unknown': (b) => `There is no boot job ${word(b['job'])}.`,
  'boot_job.name_taken': (b) => `The name ${word(b['name'])} is taken by another boot job.`,
  'boot_job.built_in': () => 'The boot job came with the platform and is neither changed nor deleted: make one of your own of it.',
  'boot_job.no_cloud_init': () => 'The VM was made without cloud-init: nothing in its guest would run the job.',
  'boot_job.of_adopted': () => 'The VM was adopted and keeps its own machine, which has no port for the results of a boot job: run it by SSH.',
  'boot_job.too_many': (b) => `The VM has ${word(b['max'])} jobs to run at its next boot: boot it, or take some back.`,
  'boot_job.not_pending': () => 'The VM has no such job to run: it has run it, or never was given it.',
  'boot_run.not_found': () => 'There is no such run of a boot job.',
  'key.not_found': () => 'There is no such SSH key.',
  'key.unknown': (b) => `There is no SSH key ${word(b['key'])}.`,
  'key.name_taken': (b) => `The name ${word(b['name'])} is taken by another SSH key.`,
  'drift.not_found': () => 'Nothing like that differs now: it is as it should be, or somebody has seen to it.',
  'drift.no_disk': (b) => `This is no file that could be the disk of a volume (${word(b['class'])}): a qcow2, or a number of 512-byte sectors, that is no volume's.`,
  'drift.cannot_revert': (b) => `It cannot be brought back (${word(b['class'])}): ${word(b['hint'])}.`,
  'drift.cannot_adopt': (b) => `It cannot become what is wanted (${word(b['class'])}): ${word(b['hint'])}.`,
  'drift.no_such_policy': (b) => `Nothing like that can be done about ${word(b['class'])} without asking: possible are ${word(b['possible'])}.`,
  'drift.other_file': (b) => `The domain has another file in the place of a disk, ${word(b['file'])}: ${word(b['says'])}.`,
  'vm.exists': () => 'There is a VM with this id.',
  'vm.name_taken': (b) => `The name ${word(b['name'] ?? b['label'] ?? '')} is taken.`,
  'network.name_taken': (b) => `The name ${word(b['name'] ?? b['label'] ?? '')} is taken.`,
  'image.name_taken': (b) => `The name ${word(b['name'] ?? b['label'] ?? '')} is taken.`,
  'image.needs_more_disk': (b) => `The image needs a disk of ${word(b['minDiskGib'])} GiB at least.`,
  'image.needs_more_memory': (b) => `The image needs ${word(b['minMemoryMib'])} MiB of memory at least.`,
  'placement.no_host': (b) => `No node can take it: ${everyReason(b)}.`,
  'saga.step_overdue': (b) => `The step ${word(b['step'])} was not answered in time.`,
  'saga.cancelled': (b) => `It was cancelled: ${word(b['because'])}.`,
  'idempotency.key_reused': () => 'This Idempotency-Key was used for another request.',
  'image.unknown': (b) => `There is no image ${word(b['image'] ?? b['imageId'] ?? '')}.`,
  'network.unknown': (b) => `There is no network ${word(b['network'] ?? b['networkId'] ?? '')}.`,
  'node.unknown': (b) => `There is no node ${word(b['node'] ?? b['nodeId'] ?? '')}.`,
  'subnet.exhausted': () => 'No address of the network is free.',
  'node.machine_id_taken': () => 'This machine has joined before. Agents that share a machine each need their own CV_NODE_AGENT_MACHINE_ID.',
};

const everyReason = (because: Because): string => {
  const reasons = Object.entries(because).filter(([, why]) => typeof why === 'string').map(([, why]) => String(why));
  return reasons.length === 0 ? 'there is none' : reasons.slice(0, 5).join('; ') + (reasons.length > 5 ? `; and ${String(reasons.length - 5)} more` : '');
};

/** `volumes` are the first of them; `count` is how many there are. */
const everyVolume = (because: Because): string => {
  const { volumes, count } = because;
  const named = (Array.isArray(volumes) ? (volumes as readonly Because[]) : []).map(({ volumeId, name, vmId }) => `${word(name ?? volumeId)}${typeof vmId === 'string' ? ` (of ${vmId})` : ''}`);
  const more = typeof count === 'number' ? count - named.length : 0;
  return named.join(', ') + (more > 0 ? ` and ${String(more)} more` : '');
};

/** `vms` are the first of them, by id or with their names; `count` is how many there are. */
const everyVm = (because: Because): string => {
  const { vms, count } = because;
  const named = (Array.isArray(vms) ? vms : []).map((vm: unknown) => (typeof vm === 'object' && vm !== null ? word((vm as Because)['name'] ?? (vm as Because)['id']) : word(vm)));
  const more = typeof count === 'number' ? count - named.length : 0;
  return named.join(', ') + (more > 0 ? ` and ${String(more)} more` : '');
};

/** A refusal as a sentence. */
export const inWords = (code: string, because: unknown): string => {
  const facts = typeof because === 'object' && because !== null ? (because as Because) : {};
  const sentence = sentences[code];
  if (sentence !== undefined) return sentence(facts);
  const hint = facts['hint'] ?? facts['message'];
  return `${code.replaceAll(/[._]/g, ' ')}${typeof hint === 'string' ? `: ${hint}` : ''}`;
};

/** A problem by its code; `detail` defaults to the code's sentence. */
export const problemOf = (code: string, more: { readonly detail?: string; readonly because?: unknown; readonly errors?: readonly BadField[] } = {}): Problem => {
  const status = statusOfCode(code);
  const errors = more.errors ?? fieldOf(code, more.because);
  return {
    type: `urn:chronovirt:problem:${code}`,
    title: titles[status] ?? 'Refused',
    status,
    detail: more.detail ?? inWords(code, more.because),
    code,
    ...(more.because === undefined ? {} : { because: more.because }),
    ...(errors === undefined ? {} : { errors }),
  };
};

/** Receivers that refuse because of one field of the body name it. */
const fieldOf = (code: string, because: unknown): readonly BadField[] | undefined => {
  const field = typeof because === 'object' && because !== null && 'field' in because ? because.field : undefined;
  return typeof field === 'string' ? [{ path: `body.${field}`, code, message: inWords(code, because) }] : undefined;
};
