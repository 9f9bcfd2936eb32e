import { scenarioOf } from '@chronovirt/decider/scenario';
import { describe, expect, it } from 'vitest';
import { consoleSession } from './console.ts';
import { isOriginAllowed, publicUrlOf, tokenShown } from './console-url.ts';

const equal = (actual: unknown, expected: unknown): void => { expect(actual).toEqual(expected); };

describe('a console', () => {
  const given = scenarioOf(consoleSession, equal);
  const about = { consoleId: `console_${'1'.repeat(32)}`, vmId: `vm_${'2'.repeat(32)}` } as const;
  const opened = { type: 'ConsoleOpened', data: { ...about, nodeId: `node_${'3'.repeat(32)}`, kind: 'vnc', address: '192.0.2.7' } } as const;
  const closed = { type: 'ConsoleClosed', data: { ...about, because: 'console.ended', bytesToGuest: 3, bytesFromGuest: 4 } } as const;

  it('is opened once', () => {
    given().when({ type: 'OpenConsole', data: opened.data }).then(opened);
    given(opened, closed).when({ type: 'OpenConsole', data: opened.data }).thenRefused('console.exists');
  });
  it('is closed by whoever comes first, and only what was opened is', () => {
    given(opened).when({ type: 'CloseConsole', data: closed.data }).then(closed);
    given(opened, closed).when({ type: 'CloseConsole', data: { ...closed.data, because: 'gateway.gone' } }).then();
    given().when({ type: 'CloseConsole', data: closed.data }).then();
  });
});

describe('where consoles are', () => {
  it('A2-05 follows what is configured, else where the caller came to', () => {
    expect(publicUrlOf(undefined, '127.0.0.1:8080')).toBe('ws://127.0.0.1:8080/v1/console');
    expect(publicUrlOf(undefined, '[::1]:8080')).toBe('ws://[::1]:8080/v1/console');
    expect(publicUrlOf('https://cloud.example', '127.0.0.1:8080')).toBe('wss://cloud.example/v1/console');
    expect(publicUrlOf('wss://cloud.example:9443/at/', undefined)).toBe('wss://cloud.example:9443/at/v1/console');
    for (const host of [undefined, '', 'a/b', 'a b', 'user@host', 'a?b']) expect(publicUrlOf(undefined, host)).toBeUndefined();
  });
  it('pages of elsewhere may not open them, unless they are named', () => {
    const at = (origin: string | undefined): boolean => isOriginAllowed(origin, { host: 'gateway:8080', publicUrl: 'wss://cloud.example/v1/console', allowed: ['https://desk.example'] });
    expect([undefined, 'http://gateway:8080', 'https://cloud.example', 'https://desk.example'].map(at)).toEqual([true, true, true, true]);
    expect(['https://evil.example', 'https://cloud.example.evil', 'null', 'https://desk.example:444', 'desk.example'].map(at)).toEqual([false, false, false, false, false]);
  });
  it('a token is shown among the subprotocols, or in the query', () => {
    const token = 'a'.repeat(43);
    expect(tokenShown('/v1/console', `chronovirt.console, cv-token.${token}`)).toBe(token);
    expect(tokenShown(`/v1/console?token=${token}`, 'binary')).toBe(token);
    expect(tokenShown('/v1/console', undefined)).toBeUndefined();
    expect(tokenShown('/v1/console?token=short', 'cv-token.no')).toBeUndefined();
  });
});
