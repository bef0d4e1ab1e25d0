/** Wrong join tokens: counted, and limited for each address, so that nobody can try many, or fill the log. Lives as long as the process. */
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { managerLimits } from './limits.js';
import { Tries } from './tries.js';

export interface WrongTokens {
  count: number;
  /** Of the last one; 0 and '' before the first. */
  lastMs: number;
  address: string;
}

export class JoinGuard {
  readonly #clock: Pick<Clock, 'now'>;
  /** By address. */
  readonly #tries: Tries;
  #wrong: WrongTokens = { count: 0, lastMs: 0, address: '' };

  constructor(clock: Pick<Clock, 'now' | 'boottimeMs'>) {
    this.#clock = clock;
    this.#tries = new Tries(clock, managerLimits.wrongTokensMs);
  }

  /** Since this manager's start. */
  get wrong(): WrongTokens {
    return this.#wrong;
  }

  /** @param peer HOST:PORT. @throws rate_limited while its host is not answered. */
  check(peer: string): void {
    const host = hostOf(peer);
    if (this.#tries.count(host) < managerLimits.maxWrongTokens) return;
    const leftMs = this.#tries.leftMs(host);
    throw new InroError(
      'rate_limited',
      `too many wrong join tokens came from ${host}: none is looked at for ${Math.ceil(leftMs / 1000)} s`,
      { remedy: 'wait, then try once with a token that an operator has just shown or made' },
    );
  }

  noteWrong(peer: string): void {
    this.#tries.note(hostOf(peer));
    this.#wrong = { count: this.#wrong.count + 1, lastMs: this.#clock.now(), address: peer };
  }
}

/** Without the port; of IPv6 the network, as one host has all addresses of its /64. */
export function hostOf(peer: string): string {
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
