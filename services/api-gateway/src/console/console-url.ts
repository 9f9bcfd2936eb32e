/* Where consoles are found from outside, who may open them from a web page, and where the token stands. */

export const CONSOLE_PATH = '/v1/console';

/** What the server picks of the subprotocols that are offered. `binary` is what VNC clients offer; never the one with the token, which would be an answer's header. */
export const SUBPROTOCOLS = ['chronovirt.console', 'binary'] as const;
const TOKEN_PROTOCOL = /^cv-token\.([A-Za-z0-9_-]{43})$/;
const TOKEN = /^[A-Za-z0-9_-]{43}$/;

const HOST = /^[A-Za-z0-9.:[\]-]{1,255}$/;

/**
 * The WebSocket URL: below what is configured (ws, wss, http or https), else where the caller has just
 * reached a gateway, by his own word; a proxy that speaks TLS must be configured.
 */
export const publicUrlOf = (configured: string | undefined, host: string | undefined): string | undefined => {
  const base = configured ?? (host !== undefined && HOST.test(host) ? `ws://${host}` : undefined);
  return base === undefined ? undefined : `${base.replace(/^http/, 'ws').replace(/\/+$/, '')}${CONSOLE_PATH}`;
};

/** A browser says from where the page is that connects. Programs say nothing, and have the token. */
export const isOriginAllowed = (origin: string | undefined, { host, publicUrl, allowed }: { readonly host: string | undefined; readonly publicUrl: string | undefined; readonly allowed: readonly string[] }): boolean => {
  if (origin === undefined || allowed.includes(origin)) return true;
  const from = URL.canParse(origin) ? new URL(origin).host : '';
  return from !== '' && (from === host || (publicUrl !== undefined && from === new URL(publicUrl).host));
};

/** The one-time token of a request to connect: a subprotocol `cv-token.<token>`, which no proxy logs, or `?token=`. */
export const tokenShown = (url: string, subprotocols: string | undefined): string | undefined => {
  const offered = (subprotocols ?? '').split(',').flatMap((one) => TOKEN_PROTOCOL.exec(one.trim())?.[1] ?? []);
  const asked = new URLSearchParams(url.split('?')[1] ?? '').get('token') ?? '';
  return offered[0] ?? (TOKEN.test(asked) ? asked : undefined);
};
