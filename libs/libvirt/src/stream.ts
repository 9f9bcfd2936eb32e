import type { Duplex } from 'node:stream';
/** Both directions of a libvirt stream, such as a console. */
export type LibvirtStream = Duplex;
