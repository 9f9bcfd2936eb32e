import { describe, expect, it } from 'vitest';
import { badCloudInit } from './cloud-init.ts';
import { parseYaml } from './yaml.http.ts';

const wrong = (cloudInit: Parameters<typeof badCloudInit>[0]): Record<string, string> => Object.fromEntries(badCloudInit(cloudInit, parseYaml).map(({ path, message }) => [path, message]));

describe('What cloud-init would not understand', () => {
  it('is nothing where nothing is said, or only what it understands', () => {
    expect(wrong(undefined)).toEqual({});
    expect(wrong({})).toEqual({});
    expect(wrong({ userData: '#cloud-config\nruncmd:\n  - [touch, /x]\n', networkConfig: 'version: 2\nethernets: {}\n' })).toEqual({});
    expect(wrong({ userData: '#cloud-config\n# nothing\n', networkConfig: '{"network": {"version": 1, "config": []}}' })).toEqual({});
  });
  it('is a text that is no YAML, with the line', () => {
    expect(wrong({ userData: '#cloud-config\nruncmd: [touch\nusers: x\n' })).toEqual({ 'body.cloudInit.userData': expect.stringMatching(/^is no YAML: .+ at line \d+/) as string });
  });
  it('is a list or a word where keys belong, and every field is named', () => {
    expect(wrong({ userData: '#cloud-config\n- a\n', networkConfig: 'eth0' })).toEqual({ 'body.cloudInit.userData': 'must hold keys and values after #cloud-config', 'body.cloudInit.networkConfig': 'must hold keys and values' });
  });
  it('is a network of no version', () => {
    expect(wrong({ networkConfig: 'version: 3\n' })).toEqual({ 'body.cloudInit.networkConfig': 'must say version: 1 or version: 2' });
    expect(wrong({ networkConfig: 'ethernets: {}\n' })).not.toEqual({});
  });
  it('is a bomb of aliases', () => {
    const bomb = ['a: &a [x,x,x,x,x,x,x,x,x,x]', ...'bcdefgh'.split('').map((name, index) => `${name}: &${name} [${Array.from({ length: 10 }, () => `*${'abcdefgh'[index] ?? ''}`).join(',')}]`)].join('\n');
    expect(wrong({ userData: `#cloud-config\n${bomb}\n` })['body.cloudInit.userData']).toMatch(/alias/i);
  });
  it('is not a script', () => {
    expect(wrong({ userData: '#!/bin/sh\necho "[unclosed: yaml\n' })).toEqual({});
  });
});
