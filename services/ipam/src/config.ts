import { type HostConfig, readHostConfig } from '@chronovirt/host/config';

export type IpamConfig = HostConfig;

export const readConfig = (environment: Readonly<Record<string, string | undefined>> = process.env): IpamConfig => readHostConfig('ipam', environment);
