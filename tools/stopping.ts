/* Ending the platform in the order in which its parts depend on each other. Virtual machines go on. */
import type { Home } from './home.ts';
import { clearUp, tell } from './keeper-client.ts';
import { runningGuests, stopLibvirt } from './libvirt.ts';
import { AGENT, SERVICES } from './services.ts';

/** The agent first, so that nothing is asked of it any more; those that others need last. */
const ORDER = [[AGENT], ['control-plane', ...SERVICES.map((service) => service.name)], ['nats'], ['postgres']];

export async function stopEverything(home: Home, say: (text: string) => void): Promise<void> {
  const answer = await tell(home, { do: 'list' });
  if (!answer) {
    const left = await clearUp(home);
    say(left.length > 0 ? `ended what an earlier start left behind: ${left.join(', ')}` : 'nothing of the platform ran');
  } else {
    const running = new Set(answer.parts.map((part) => part.name));
    for (const names of ORDER) {
      const here = names.filter((name) => running.has(name));
      await Promise.all(here.map((name) => tell(home, { do: 'stop', name })));
      if (here.length > 0) say(`stopped ${here.join(', ')}`);
    }
    await tell(home, { do: 'end' });
  }
  const libvirt = await stopLibvirt();
  const guests = runningGuests();
  if (libvirt === 'stopped') say('stopped libvirtd');
  if (libvirt === 'virtual machines run') say(`libvirtd goes on, because ${guests} virtual ${guests === 1 ? 'machine runs' : 'machines run'}; the next start finds ${guests === 1 ? 'it' : 'them'}`);
  if (libvirt === 'others are connected') say('libvirtd goes on, because others are connected to it');
}
