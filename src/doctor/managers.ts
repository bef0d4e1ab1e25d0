/** Whether the managers that this host knows can be reached: a TCP connection, and nothing is said on it. */
import net from 'node:net';
import type { Clock } from '../model/clock.js';
import { fail, note, ok, warn, type Finding } from './finding.js';

const connectMs = 3_000;

/** Resolves with '' when somebody answers at HOST:PORT, or why not. */
export type Knock = (address: string, signal: AbortSignal) => Promise<string>;

export async function managers(
  addresses: readonly string[],
  clock: Pick<Clock, 'sleep'>,
  knock: Knock = knockTcp,
): Promise<Finding> {
  const name = 'managers';
  if (addresses.length === 0) return note(name, 'none is known yet');
  const enough = new AbortController();
  const late = clock.sleep(connectMs, enough.signal).then(() => `no answer within ${connectMs / 1000} s`);
  const answers = await Promise.all(
    addresses.map(async (address) => ({
      address,
      why: await Promise.race([knock(address, enough.signal), late]),
    })),
  );
  enough.abort();
  return judged(answers);
}

function judged(answers: readonly { address: string; why: string }[]): Finding {
  const silent = answers.filter(({ why }) => why !== '');
  const count = `${answers.length - silent.length} of ${answers.length} can be reached`;
  const who = silent.map(({ address, why }) => `${address}: ${why}`).join('; ');
  if (silent.length === 0)
    return ok('managers', `${count}: ${answers.map(({ address }) => address).join(', ')}`);
  const remedy = 'see that the manager runs, and that routes and firewalls let this host reach its port';
  const found = silent.length === answers.length ? fail : warn;
  return found('managers', `${count}; ${who}`, remedy);
}

function knockTcp(address: string, signal: AbortSignal): Promise<string> {
  return new Promise((resolve) => {
    const [, host = '', port = ''] = /^\[?(.*?)\]?:([0-9]+)$/.exec(address) ?? [];
    const socket = net.connect({ host, port: Number(port) });
    const done = (why: string): void => {
      socket.destroy();
      resolve(why);
    };
    signal.addEventListener('abort', () => done('given up'), { once: true });
    socket.once('connect', () => done(''));
    socket.once('error', (error: NodeJS.ErrnoException) => done(error.code ?? error.message));
  });
}
