/**
 * Steps that come together go into one commit, in their order, so that what comes from thousands of nodes costs a few writes to
 * the disk.
 */
import { InroError } from '../model/error.js';
import type { Store } from '../store/store.js';
import { transact, type Transaction } from '../store/transaction.js';

interface Options<A> {
  /** One attempt of a commit; what it gathers counts only once it is committed. */
  begin: (tx: Transaction) => A;
  /** After an attempt's last step. */
  finish?: (attempt: A) => void;
  committed?: (attempt: A) => void;
  /** Waited for before the first commit after a pause; without it what comes in one turn is written together. */
  gather?: () => Promise<void>;
  /** Of all steps of one commit; a heavier step has one of its own. */
  maxWeight: number;
}

interface Step<A> {
  run: (attempt: A) => Promise<void>;
  weight: number;
  done: () => void;
  failed: (error: unknown) => void;
}

export class CommitQueue<A> {
  readonly #store: Store;
  readonly #options: Options<A>;
  readonly #waiting: Step<A>[] = [];
  #writing: Promise<void> | undefined;
  #stopped = false;

  constructor(store: Store, options: Options<A>) {
    this.#store = store;
    this.#options = options;
  }

  /** Resolves when it is durable. @throws unreachable once it is stopped, and what the step or the store throws. */
  do(run: Step<A>['run'], weight = 1): Promise<void> {
    if (this.#stopped) return Promise.reject(new InroError('unreachable', 'the manager is stopping'));
    return new Promise((done, failed) => {
      this.#waiting.push({ run, weight, done, failed });
      this.#writing ??= this.#write();
    });
  }

  /** Ends when what was asked for is written; nothing is, after it. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#writing;
  }

  async #write(): Promise<void> {
    await (this.#options.gather?.() ?? Promise.resolve());
    for (let batch = this.#next(); batch.length > 0; batch = this.#next()) {
      try {
        await this.#commit(batch);
        for (const { done } of batch) done();
      } catch (error) {
        await this.#oneByOne(batch, error);
      }
    }
    this.#writing = undefined;
  }

  #next(): Step<A>[] {
    let weight = 0;
    const tooMany = this.#waiting.findIndex(
      (step, n) => (weight += step.weight) > this.#options.maxWeight && n > 0,
    );
    return this.#waiting.splice(0, tooMany < 0 ? this.#waiting.length : tooMany);
  }

  /** A record that cannot be read concerns the node that it is about, and nobody else; a full disk all of them. */
  async #oneByOne(batch: readonly Step<A>[], error: unknown): Promise<void> {
    const isCommon = !(error instanceof InroError) || error.code !== 'store_corrupt' || batch.length === 1;
    for (const step of batch) {
      if (isCommon) step.failed(error);
      else await this.#commit([step]).then(step.done, step.failed);
    }
  }

  async #commit(batch: readonly Step<A>[]): Promise<void> {
    const { begin, finish, committed } = this.#options;
    const { result } = await transact(this.#store, async (tx) => {
      const attempt = begin(tx);
      for (const { run } of batch) await run(attempt);
      finish?.(attempt);
      return attempt;
    });
    committed?.(result);
  }
}
