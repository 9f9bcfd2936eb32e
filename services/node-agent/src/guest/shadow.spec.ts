import { describe, expect, it } from 'vitest';
import { withPassword } from './shadow.ts';

const DAY_20_000 = 20_000 * 86_400_000 + 5;
const SHADOW = 'root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\ndebian:!$6$old$x:19000:0:90:7:14:20100:\nroot2:*:1::::::\n';

describe('A password in the text of a shadow file', () => {
  it('stands in the line of its user, with the day, and all else stays', () => {
    expect(withPassword(SHADOW, 'debian', '$6$s$h', DAY_20_000)).toBe(SHADOW.replace('debian:!$6$old$x:19000', 'debian:$6$s$h:20000'));
    expect(withPassword(SHADOW, 'root', '$6$s$h', DAY_20_000)).toBe(SHADOW.replace('root:*:19000', 'root:$6$s$h:20000'));
    expect(withPassword('root::1', 'root', 'h', DAY_20_000)).toBe('root:h:20000');
  });
  it('is nowhere where there is no such user, however the name looks', () => {
    for (const user of ['nobody', 'roo', 'root2x', '', '.*']) expect(withPassword(SHADOW, user, 'h', DAY_20_000)).toBeUndefined();
    expect(withPassword('', 'root', 'h', DAY_20_000)).toBeUndefined();
  });
});
