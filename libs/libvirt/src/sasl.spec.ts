import { createHash, createHmac, pbkdf2Sync } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chooseMechanism, prepared, SaslError, saslMechanisms, startSasl } from './sasl.ts';
import type { SaslExchange } from './sasl.ts';

const pencil = { username: 'user', password: 'pencil' };
const says = (exchange: SaslExchange, challenge: string) => exchange.answer(Buffer.from(challenge)).then((answer) => answer?.toString());

/** The other side of SCRAM-SHA-256, written from RFC 5802 on its own. */
function server(password: string, clientFirst: string, salt = Buffer.from('salt of a server'), iterations = 4_096) {
  const bare = clientFirst.slice(clientFirst.indexOf(',', clientFirst.indexOf(',') + 1) + 1);
  const nonce = `${/r=([^,]*)/.exec(bare)?.[1] ?? ''}of-the-server`;
  const challenge = `r=${nonce},s=${salt.toString('base64')},i=${iterations}`;
  const hmac = (key: Buffer, text: string) => createHmac('sha256', key).update(text).digest();
  const salted = pbkdf2Sync(password, salt, iterations, 32, 'sha256');
  const storedKey = createHash('sha256').update(hmac(salted, 'Client Key')).digest();
  const judge = (clientFinal: string) => {
    const [withoutProof = '', proof = ''] = clientFinal.split(',p=');
    const all = `${bare},${challenge},${withoutProof}`;
    const signature = hmac(storedKey, all);
    const clientKey = Buffer.from(Buffer.from(proof, 'base64').map((byte, index) => byte ^ (signature[index] as number)));
    const right = createHash('sha256').update(clientKey).digest().equals(storedKey) && withoutProof.endsWith(`r=${nonce}`);
    return { right, signature: `v=${hmac(hmac(salted, 'Server Key'), all).toString('base64')}` };
  };
  return { challenge, judge };
}

describe('SCRAM', () => {
  it('speaks the example of RFC 7677 (SHA-256)', async () => {
    const exchange = startSasl('SCRAM-SHA-256', pencil, 'rOprNGfwEbeRWgbNEkqO');
    expect(exchange.first.toString()).toBe('n,,n=user,r=rOprNGfwEbeRWgbNEkqO');
    expect(await says(exchange, 'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096')).toBe(
      'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=',
    );
    expect(exchange.satisfied).toBe(false);
    expect(await says(exchange, 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=')).toBe('');
    expect(exchange.satisfied).toBe(true);
  });

  it('speaks the example of RFC 5802 (SHA-1)', async () => {
    const exchange = startSasl('SCRAM-SHA-1', pencil, 'fyko+d2lbbFgONRv9qkxdawL');
    expect(exchange.first.toString()).toBe('n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL');
    expect(await says(exchange, 'r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096')).toBe(
      'c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=',
    );
    expect(await says(exchange, 'v=rmF9pqV8S7suAoZWja4dJRkFsKQ=')).toBe('');
    expect(exchange.satisfied).toBe(true);
  });

  it('is understood by another implementation, whatever the name and the password', () =>
    fc.assert(
      fc.asyncProperty(fc.string({ minLength: 1, maxLength: 30 }), fc.string({ maxLength: 30 }), fc.boolean(), async (name, password, acting) => {
        fc.pre(!/\p{Cc}/u.test(name + password));
        const exchange = startSasl('SCRAM-SHA-256', { username: name, password, ...(acting ? { actingAs: 'a,b=c' } : {}) });
        const first = exchange.first.toString();
        expect(first.startsWith(acting ? 'n,a=a=2Cb=3Dc,n=' : 'n,,n=')).toBe(true);
        const other = server(password, first);
        const verdict = other.judge((await says(exchange, other.challenge)) ?? '');
        expect(verdict.right).toBe(true);
        await says(exchange, verdict.signature);
        expect(exchange.satisfied).toBe(true);
      }),
      { numRuns: 20 },
    ));

  it('takes a new nonce each time', () => expect(startSasl('SCRAM-SHA-256', pencil).first.equals(startSasl('SCRAM-SHA-256', pencil).first)).toBe(false));

  it('proves nothing with a wrong password, and does not take a server that has a wrong one', async () => {
    const exchange = startSasl('SCRAM-SHA-256', pencil);
    const other = server('another', exchange.first.toString());
    const verdict = other.judge((await says(exchange, other.challenge)) ?? '');
    expect(verdict.right).toBe(false);
    await expect(says(exchange, verdict.signature)).rejects.toThrow(/did not show/);
    expect(exchange.satisfied).toBe(false);
  });

  it.each([
    ['no challenge', ''],
    ['a challenge without a salt', 'r=NONCEx,i=4096'],
    ['an empty salt', 'r=NONCEx,s=,i=4096'],
    ['a nonce that is not ours', 'r=other,s=QUJD,i=4096'],
    ['our nonce alone', 'r=NONCE,s=QUJD,i=4096'],
    ['one iteration', 'r=NONCEx,s=QUJD,i=1'],
    ['iterations without end', 'r=NONCEx,s=QUJD,i=999999999'],
    ['iterations that are no number', 'r=NONCEx,s=QUJD,i=4096x'],
    ['an extension that changes the rest', 'm=1,r=NONCEx,s=QUJD,i=4096'],
    ['a message that is too long', `r=NONCEx,s=${'A'.repeat(20_000)},i=4096`],
  ])('refuses %s', async (_what, challenge) => {
    await expect(says(startSasl('SCRAM-SHA-256', pencil, 'NONCE'), challenge)).rejects.toBeInstanceOf(SaslError);
  });

  it.each([['nothing', ''], ['an error', 'e=invalid-proof'], ['a short signature', 'v=QUJD'], ['another word', 'x=1']])('refuses %s in place of the signature', async (_what, last) => {
    const exchange = startSasl('SCRAM-SHA-256', pencil);
    await says(exchange, server('pencil', exchange.first.toString()).challenge);
    await expect(says(exchange, last)).rejects.toBeInstanceOf(SaslError);
    expect(exchange.satisfied).toBe(false);
  });
});

describe('PLAIN', () => {
  it('says whom it acts as, who it is and the password', async () => {
    expect(startSasl('PLAIN', pencil).first.toString()).toBe('\0user\0pencil');
    expect(startSasl('PLAIN', { ...pencil, actingAs: 'root' }).first.toString()).toBe('root\0user\0pencil');
    expect(await says(startSasl('PLAIN', pencil), '')).toBeUndefined();
    await expect(says(startSasl('PLAIN', pencil), 'more?')).rejects.toBeInstanceOf(SaslError);
  });

  it.each([{ username: '', password: 'x' }, { username: 'a\0b', password: 'x' }, { username: 'a', password: 'x\0' }])('refuses %j', (credentials) =>
    expect(() => startSasl('PLAIN', credentials)).toThrow(SaslError),
  );
});

describe('the mechanism', () => {
  const offered = ['PLAIN', 'GSSAPI', 'SCRAM-SHA-1', 'SCRAM-SHA-256'];

  it('is the strongest on offer', () => {
    expect(chooseMechanism({ offered, wanted: saslMechanisms, plainAllowed: true })).toBe('SCRAM-SHA-256');
    expect(chooseMechanism({ offered: ['PLAIN'], wanted: saslMechanisms, plainAllowed: true })).toBe('PLAIN');
    expect(chooseMechanism({ offered, wanted: ['PLAIN'], plainAllowed: true })).toBe('PLAIN');
  });

  it('is not PLAIN where others may read', () => expect(() => chooseMechanism({ offered: ['PLAIN'], wanted: saslMechanisms, plainAllowed: false })).toThrow(/PLAIN/));

  it('missing, says what was on offer', () => expect(() => chooseMechanism({ offered: ['GSSAPI', '<b>'], wanted: saslMechanisms, plainAllowed: true })).toThrow(/GSSAPI, \?b\?/));
});

describe('a name or password', () => {
  // The examples of RFC 4013, section 3, and a few more.
  it.each([['I\u00ADX', 'IX'], ['user', 'user'], ['USER', 'USER'], ['\u00AA', 'a'], ['\u2168', 'IX'], ['a\u00A0b', 'a b'], ['e\u0301', '\u00E9']])('%j is prepared as %j', (given, wanted) => expect(prepared(given)).toBe(wanted));
  it.each(['\u0007', '\uE000', '\uD800', '\u200E'])('%j is forbidden', (given) => expect(() => prepared(given)).toThrow(SaslError));
});
