/** Wrong join tokens: counted, and limited for each address, so that nobody can try many, or fill the log. Lives as long as the process. */
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { managerLimits } from './limits.js';

interface Tries {
  count: number;
  sinceMs: number;
}

export interface WrongTokens {
  count: number;
  /** Of the last one; 0 and '' before the first. */
  lastMs: number;
  address: string;
}

export class JoinGuard {
  readonly #clock: Pick<Clock, 'now' | 'boottimeMs'>;
  /** By address, those that were wrong least recently first. */
  readonly #tries = new Map<string, Tries>();
  #wrong: WrongTokens = { count: 0, lastMs: 0, address: '' };

  constructor(clock: Pick<Clock, 'now' | 'boottimeMs'>) {
    this.#clock = clock;
  }

  /** Since this manager's start. */
  get wrong(): WrongTokens {
    return this.#wrong;
  }

  /** @param peer HOST:PORT. @throws rate_limited while its host is not answered. */
  check(peer: string): void {
    const tries = this.#current(hostOf(peer));
    if (tries === undefined || tries.count < managerLimits.maxWrongTokens) return;
    const leftMs = tries.sinceMs + managerLimits.wrongTokensMs - this.#clock.boottimeMs();
    throw new InroError(
      'rate_limited',
      `too many wrong join tokens came from ${hostOf(peer)}: none is looked at for ${Math.ceil(leftMs / 1000)} s`,
      { remedy: 'wait, then try once with a token that an operator has just shown or made' },
    );
  }

  noteWrong(peer: string): void {
    const host = hostOf(peer);
    const tries = this.#current(host) ?? { count: 0, sinceMs: this.#clock.boottimeMs() };
    this.#tries.delete(host);
    this.#tries.set(host, { ...tries, count: tries.count + 1 });
    const [oldest] = this.#tries.keys();
    if (this.#tries.size > managerLimits.maxWatchedAddresses && oldest !== undefined)
      this.#tries.delete(oldest);
    this.#wrong = { count: this.#wrong.count + 1, lastMs: this.#clock.now(), address: peer };
  }

  #current(host: string): Tries | undefined {
    const tries = this.#tries.get(host);
    if (tries === undefined || this.#clock.boottimeMs() - tries.sinceMs < managerLimits.wrongTokensMs)
      return tries;
    this.#tries.delete(host);
    return undefined;
  }
}

/** Without the port; of IPv6 the network, as one host has all addresses of its /64. */
function hostOf(peer: string): string {
  const host = peer
    .replace(/:[0-9]+$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/^::ffff:(?=[0-9.]+$)/i, '');
  if (!host.includes(':')) return host;
  const [head = '', tail = ''] = host.split('::');
  const front = head === '' ? [] : head.split(':');
  const back = tail === '' ? [] : tail.split(':');
  const gap = host.includes('::') ? Array<string>(Math.max(0, 8 - front.length - back.length)).fill('0') : [];
  return `${[...front, ...gap, ...back].slice(0, 4).join(':')}::/64`;
}
