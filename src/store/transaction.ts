/**
 * Read, decide, commit: what was read must still be so when the commit lands, otherwise all is done again.
 * The same on every store.
 */
import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import { InroError } from '../model/error.js';
import type { Commit, Store } from './store.js';
import { decodeRecord, encodeRecord, type Table } from './tables.js';

const maxTries = 16;

export interface Transaction {
  get<S extends DescMessage>(table: Table<S>, id: string): Promise<MessageShape<S> | undefined>;
  /** Each record that is there now; one that appears meanwhile is not noticed. */
  list<S extends DescMessage>(table: Table<S>, prefix?: string): Promise<MessageShape<S>[]>;
  put<S extends DescMessage>(table: Table<S>, id: string, record: MessageShape<S>): void;
  delete(table: Table<DescMessage>, id: string): void;
  getBytes(key: string): Promise<Uint8Array | undefined>;
  putBytes(key: string, value: Uint8Array): void;
  deleteBytes(key: string): void;
}

export interface Committed<T> {
  result: T;
  /** The store's revision with this change in it; the present one when there was nothing to write. */
  revision: number;
}

/** @throws conflict when others keep getting in between; store_full; and whatever `decide` throws. */
export async function transact<T>(
  store: Store,
  decide: (tx: Transaction) => Promise<T>,
): Promise<Committed<T>> {
  for (let attempt = 1; ; attempt++) {
    const { tx, commit } = begin(store);
    const result = await decide(tx);
    const { checks, puts, deletes } = commit();
    if (puts.length === 0 && deletes.length === 0) return { result, revision: await store.revision() };
    try {
      return { result, revision: await store.commit({ checks, puts, deletes }) };
    } catch (error) {
      if (!(error instanceof InroError) || error.code !== 'conflict' || attempt === maxTries) throw error;
    }
  }
}

function begin(store: Store): { tx: Transaction; commit: () => Commit } {
  const seen = new Map<string, number>();
  const written = new Map<string, Uint8Array | undefined>();
  // The first reading counts: what was decided may rest on it.
  const note = (key: string, revision: number): void => {
    if (!seen.has(key)) seen.set(key, revision);
  };

  const read = async (key: string): Promise<Uint8Array | undefined> => {
    if (written.has(key)) return written.get(key);
    const entry = await store.get(key);
    note(key, entry?.revision ?? 0);
    return entry?.value;
  };

  const tx: Transaction = {
    async get(table, id) {
      const value = await read(table.prefix + id);
      return value === undefined ? undefined : decodeRecord(table, table.prefix + id, value);
    },
    async list(table, prefix = '') {
      const entries = await store.list(table.prefix + prefix);
      for (const { key, revision } of entries) note(key, revision);
      const own = [...written].filter(([key]) => key.startsWith(table.prefix + prefix));
      const values = new Map([...entries.map(({ key, value }) => [key, value] as const), ...own]);
      return [...values]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .flatMap(([key, value]) => (value === undefined ? [] : [decodeRecord(table, key, value)]));
    },
    put: (table, id, record) => void written.set(table.prefix + id, encodeRecord(table, record)),
    delete: (table, id) => void written.set(table.prefix + id, undefined),
    getBytes: read,
    putBytes: (key, value) => void written.set(key, value),
    deleteBytes: (key) => void written.set(key, undefined),
  };

  return {
    tx,
    commit: () => ({
      checks: [...seen].map(([key, revision]) => ({ key, revision })),
      puts: [...written].flatMap(([key, value]) => (value === undefined ? [] : [{ key, value }])),
      deletes: [...written].flatMap(([key, value]) => (value === undefined ? [key] : [])),
    }),
  };
}
