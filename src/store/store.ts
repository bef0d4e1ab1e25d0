/**
 * What the manager keeps, as one interface: keys and values with a revision, and atomic commits that hold
 * only if what they were decided on is still so. Embedded (lmdb) and distributed stores offer the same.
 */
export interface Entry {
  key: string;
  value: Uint8Array;
  /** The store's revision at which this key was written last. */
  revision: number;
}

export interface Commit {
  /** Each key must still have this revision; 0 means that it must not exist. */
  checks: readonly { key: string; revision: number }[];
  puts: readonly { key: string; value: Uint8Array }[];
  deletes: readonly string[];
}

export interface Change {
  revision: number;
  puts: readonly { key: string; value: Uint8Array }[];
  /** Of keys that were there; others may be among them. */
  deletes: readonly string[];
}

export interface Store {
  get(key: string): Promise<Entry | undefined>;
  /** In the order of keys. */
  list(prefix: string): Promise<Entry[]>;
  /**
   * All or nothing, and durable before it resolves. One commit raises the store's revision by one.
   * @throws conflict when a check does not hold; store_full when the disk is full: then nothing is changed.
   */
  commit(commit: Commit): Promise<number>;
  /**
   * Everything as it is at one revision, in the order of keys, while others go on writing.
   * @param use has its entries one after the other, and none after it has returned.
   */
  snapshot<T>(use: (revision: number, entries: AsyncIterable<Entry>) => Promise<T>): Promise<T>;
  /** Resolves when what has been replaced or deleted so far can be had of nobody any more who keeps it. */
  forgetPast(): Promise<void>;
  /** The last commit's revision; 0 for a new store. */
  revision(): Promise<number>;
  /** Calls back with each commit, in order, before the commit's own promise resolves. Returns how to stop. */
  watch(listener: (change: Change) => void): () => void;
  close(): Promise<void>;
}
