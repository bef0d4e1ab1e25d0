/** The replacement of the data key, under which content keys are wrapped at rest: each is wrapped anew, in the background. */
import type { Logger } from 'pino';
import type { Arena } from '../crypto/arena.js';
import { drawKey } from '../crypto/exchange.js';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import type { Store } from '../store/store.js';
import { tables, versionKey } from '../store/tables.js';
import { transact } from '../store/transaction.js';
import { clusterIn } from './cluster_record.js';
import { dropNextDataKey, settleDataKey, writeNextDataKey } from './data_key_files.js';
import type { Keyring } from './keyring.js';
import { managerLimits } from './limits.js';
import type { ClusterView } from './view.js';

export interface DataKeyParts {
  folder: string;
  clusterId: string;
  arena: Arena;
  store: Store;
  view: ClusterView;
  keyring: Keyring;
  /** To every manager, before a key is used and after it is used no more. */
  publish: () => Promise<void>;
  clock: Clock;
  log: Logger;
}

export interface DataKeyState {
  sinceMs: number;
  /** Content keys are being wrapped anew: how many are done of how many; undefined when none is under a former key. */
  progress?: { done: number; total: number };
  /** Why it does not go on just now. */
  lastError: string;
}

export class DataKey {
  readonly #parts: DataKeyParts;
  readonly #over = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #done = 0;
  #lastError = '';
  #isBeginning = false;

  /** Goes on with what a former run has begun. */
  constructor(parts: DataKeyParts) {
    this.#parts = parts;
    if (parts.keyring.hasFormer) this.#start();
  }

  async state(): Promise<DataKeyState> {
    const { store, view, keyring } = this.#parts;
    const { dataKeySinceMs, createdMs } = (await transact(store, clusterIn)).result;
    const sinceMs = Number(dataKeySinceMs || createdMs);
    if (!keyring.hasFormer) return { sinceMs, lastError: '' };
    const total = view.everyVersion().length;
    return {
      sinceMs,
      progress: { done: Math.min(this.#done, total), total },
      lastError: this.#lastError,
    };
  }

  /** From its return on everything new is under another key. @throws conflict while one is replaced; state_unusable. */
  async rotate(): Promise<void> {
    const { folder, arena, keyring, log } = this.#parts;
    if (keyring.hasFormer || this.#isBeginning)
      throw new InroError('conflict', 'the data key is being replaced already', {
        remedy: "'inro manager data-key' shows how far it is",
      });
    const next = drawKey(arena);
    this.#isBeginning = true;
    try {
      writeNextDataKey(folder, next, arena);
      await this.#published();
    } catch (error) {
      next.wipe();
      throw error;
    } finally {
      this.#isBeginning = false;
    }
    keyring.useNext(next);
    this.#start();
    log.info('the data key is being replaced');
  }

  /** Before it is used. What nobody else has is used by nobody. */
  async #published(): Promise<void> {
    const { folder, publish, log } = this.#parts;
    try {
      await publish();
    } catch (error) {
      try {
        dropNextDataKey(folder);
      } catch (cause) {
        log.warn({ err: cause }, 'a data key that was not used is left in the folder');
      }
      throw error;
    }
  }

  async stop(): Promise<void> {
    this.#over.abort();
    await this.#running;
  }

  #start(): void {
    this.#done = 0;
    this.#running = this.#run();
  }

  /** Until nothing is under the former key: a full disk, or whatever else, makes it wait. */
  async #run(): Promise<void> {
    const { clock, log } = this.#parts;
    const { signal } = this.#over;
    while (!signal.aborted) {
      try {
        await this.#wrapAll();
        if (signal.aborted) return;
        await this.#finish();
        this.#lastError = '';
        return;
      } catch (error) {
        this.#lastError = (error as Error).message;
        log.error({ err: error }, 'the data key is not replaced yet; it is tried again');
        await clock.sleep(managerLimits.dataKeyRetryMs, signal);
      }
    }
  }

  async #wrapAll(): Promise<void> {
    const { store, keyring, clock } = this.#parts;
    await transact(store, async (tx) => {
      const cluster = await clusterIn(tx);
      const text = keyring.rewrapText(cluster.sealedWorkerToken);
      if (text === undefined) return;
      cluster.sealedWorkerToken = text;
      cluster.dataKeySinceMs = BigInt(clock.now());
      tx.put(tables.cluster, 'self', cluster);
    });
    // A change that was decided before may have landed behind the first pass.
    for (let pass = 1, changed = 1; (changed > 0 || pass <= 2) && !this.#over.signal.aborted; pass++)
      changed = await this.#pass();
  }

  /** @returns how many it has wrapped anew. */
  async #pass(): Promise<number> {
    const { store, view, keyring, clusterId } = this.#parts;
    const versions = view.everyVersion();
    let changed = 0;
    this.#done = 0;
    for (let from = 0; from < versions.length; from += managerLimits.rewrapsPerCommit) {
      if (this.#over.signal.aborted) return changed;
      const some = versions.slice(from, from + managerLimits.rewrapsPerCommit);
      await transact(store, async (tx) => {
        for (const { secretId, version } of some) {
          const record = await tx.get(tables.versions, versionKey(secretId, version));
          // Revoked ones have none.
          if (record === undefined || record.sealedKey.length === 0) continue;
          const { ciphertextDigest, sealedKey } = record;
          const wrapped = keyring.rewrap(sealedKey, { clusterId, secretId, version, ciphertextDigest });
          if (wrapped === undefined) continue;
          record.sealedKey = wrapped;
          tx.put(tables.versions, versionKey(secretId, version), record);
          changed++;
        }
      });
      this.#done += some.length;
    }
    return changed;
  }

  async #finish(): Promise<void> {
    const { folder, keyring, publish, log } = this.#parts;
    if (keyring.hasFormer) settleDataKey(folder);
    keyring.forgetFormer();
    await publish();
    log.info('the data key was replaced');
  }
}
