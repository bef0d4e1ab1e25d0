/** Notes now and then when nodes were heard last: a manager that starts, or is locked, then knows when their leases end. */
import type { Logger } from 'pino';
import type { Clock } from '../model/clock.js';
import type { Store } from '../store/store.js';
import { tables } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import type { Dispatcher } from './dispatcher.js';
import { managerLimits } from './limits.js';
import type { ClusterView } from './view.js';

export interface SeenBookParts {
  store: Store;
  view: ClusterView;
  dispatcher: Dispatcher;
  clock: Clock;
  log: Logger;
}

/** Less than so much news is none. */
const leastMs = 1_000;
const perCommit = 200;

export class SeenBook {
  readonly #parts: SeenBookParts;
  readonly #over = new AbortController();
  readonly #running: Promise<void>;

  constructor(parts: SeenBookParts) {
    this.#parts = parts;
    this.#running = this.#run();
  }

  /** With a last note. */
  async stop(): Promise<void> {
    this.#over.abort();
    await this.#running;
    await this.#note();
  }

  async #run(): Promise<void> {
    const { clock } = this.#parts;
    for (;;) {
      await clock.sleep(managerLimits.noteSeenMs, this.#over.signal);
      if (this.#over.signal.aborted) return;
      await this.#note();
    }
  }

  async #note(): Promise<void> {
    const { store, view, dispatcher, log } = this.#parts;
    const news = [...view.nodes.values()].flatMap(({ id, lastSeenMs }) => {
      const seenMs = dispatcher.lastSeenMs(id);
      return seenMs === undefined || seenMs - Number(lastSeenMs) < leastMs ? [] : [{ id, seenMs }];
    });
    try {
      for (let from = 0; from < news.length; from += perCommit)
        await transact(store, async (tx) => {
          for (const { id, seenMs } of news.slice(from, from + perCommit)) {
            const node = await tx.get(tables.nodes, id);
            if (node === undefined) continue;
            node.lastSeenMs = BigInt(seenMs);
            tx.put(tables.nodes, id, node);
          }
        });
    } catch (error) {
      log.warn({ err: error }, 'it was not noted when nodes were heard last');
    }
  }
}
