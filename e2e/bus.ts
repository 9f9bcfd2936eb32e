/* What a test asks of the bus itself. */
import { connectBus } from '@chronovirt/messaging/connect';
import type { Platform } from './platform.ts';

interface StreamInfo {
  readonly state?: { readonly messages: number };
  readonly error?: { readonly description: string };
}

/** Subjects of what was set aside; none when all is well. */
export async function deadLetters(platform: Platform): Promise<readonly string[]> {
  const bus = await connectBus({ servers: platform.natsUrl, credentials: { file: platform.natsCreds }, name: 'test' });
  try {
    const reply = await bus.nc.request('$JS.API.STREAM.INFO.DEAD', JSON.stringify({ subjects_filter: '>' }), { timeout: 5_000 });
    const info = reply.json<StreamInfo & { readonly state?: { readonly subjects?: Readonly<Record<string, number>> } }>();
    if (info.error !== undefined) throw new Error(`the stream DEAD cannot be asked: ${info.error.description}`);
    return Object.keys(info.state?.subjects ?? {});
  } finally {
    await bus.close();
  }
}
