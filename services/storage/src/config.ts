import { type HostConfig, readHostConfig } from '@chronovirt/host/config';

export type StorageConfig = HostConfig;

export const readConfig = (environment: Readonly<Record<string, string | undefined>> = process.env): StorageConfig => readHostConfig('storage', environment);
