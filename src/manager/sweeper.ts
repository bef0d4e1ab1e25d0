/** Takes away what has expired: join tokens, hosts that nobody approved, refusals of certificates that have ended. */
import type { Logger } from 'pino';
import type { Clock } from '../model/clock.js';
import type { Store } from '../store/store.js';
import { holderKey, tables } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import { endedMs } from './control_tokens.js';
import type { Ledger } from './ledger.js';
import { managerLimits } from './limits.js';
import type { ClusterView } from './view.js';

interface SweeperParts {
  store: Store;
  view: ClusterView;
  clock: Clock;
  log: Logger;
  ledger: Pick<Ledger, 'removedEndsMs'>;
}

export class Sweeper {
  readonly #parts: SweeperParts;
  readonly #over = new AbortController();
  readonly #running: Promise<void>;

  constructor(parts: SweeperParts) {
    this.#parts = parts;
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#over.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, log } = this.#parts;
    while (!this.#over.signal.aborted) {
      try {
        await this.#sweep();
      } catch (error) {
        log.warn({ err: error }, 'what has expired could not be taken away; trying again');
      }
      await clock.sleep(managerLimits.sweepMs, this.#over.signal);
    }
  }

  async #sweep(): Promise<void> {
    const { store, view, clock, ledger } = this.#parts;
    const now = clock.now();
    const isOver = (ms: bigint | undefined): boolean => ms !== undefined && ms > 0n && ms <= BigInt(now);
    const tokens = [...view.joinTokens.values()].filter((token) => {
      const ms = endedMs(token, now);
      return isOver(ms === undefined ? undefined : ms + BigInt(managerLimits.keepEndedTokenMs));
    });
    const nodes = [...view.nodes.values()].filter(({ pendingUntilMs }) => isOver(pendingUntilMs));
    const refusals = view.refusals.all().filter(([, { untilMs }]) => isOver(untilMs));
    const copies = view.holders
      .ofRemoved()
      .filter((holder) => ledger.removedEndsMs(holder) <= clock.boottimeMs());
    if (tokens.length + nodes.length + refusals.length + copies.length === 0) return;
    await transact(store, async (tx) => {
      for (const { id } of tokens) tx.delete(tables.joinTokens, id);
      for (const [key] of refusals) tx.delete(tables.refused, key);
      for (const { nodeId, secretId, version } of copies)
        tx.delete(tables.holders, holderKey(nodeId, secretId, version));
      for (const { id } of nodes)
        if (isOver((await tx.get(tables.nodes, id))?.pendingUntilMs)) tx.delete(tables.nodes, id);
    });
  }
}
