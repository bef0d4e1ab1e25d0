/** Which node may hold which version, both ways round: the `holders` table in memory. */
import type { HolderRecord } from '../proto/gen/inro/v1/records_pb.js';
import { versionKey } from '../store/tables.js';

export class Holders {
  /** By node, then by `versionKey`. */
  readonly #byNode = new Map<string, Map<string, HolderRecord>>();
  /** Ids of nodes by `versionKey`. */
  readonly #byVersion = new Map<string, Set<string>>();

  put(record: HolderRecord): void {
    const { nodeId, secretId, version } = record;
    const key = versionKey(secretId, version);
    at(this.#byNode, nodeId, () => new Map()).set(key, record);
    at(this.#byVersion, key, () => new Set()).add(nodeId);
  }

  /** @param key as `holderKey` makes it. */
  delete(key: string): void {
    const cut = key.indexOf('/');
    forget(this.#byNode, key.slice(0, cut), key.slice(cut + 1));
    forget(this.#byVersion, key.slice(cut + 1), key.slice(0, cut));
  }

  /** @param key as `holderKey` makes it. */
  hasKey(key: string): boolean {
    const cut = key.indexOf('/');
    return this.#byNode.get(key.slice(0, cut))?.has(key.slice(cut + 1)) === true;
  }

  /** What nodes that were removed may hold, by their lease. */
  ofRemoved(): HolderRecord[] {
    return [...this.#byNode.values()].flatMap((held) =>
      [...held.values()].filter(({ removedUntilMs }) => removedUntilMs > 0n),
    );
  }

  /** What the node may hold. */
  ofNode(nodeId: string): HolderRecord[] {
    return [...(this.#byNode.get(nodeId)?.values() ?? [])];
  }

  get(nodeId: string, secretId: string, version: number): HolderRecord | undefined {
    return this.#byNode.get(nodeId)?.get(versionKey(secretId, version));
  }

  /** Ids of the nodes that may hold this version. */
  of(secretId: string, version: number): string[] {
    return [...(this.#byVersion.get(versionKey(secretId, version)) ?? [])];
  }
}

function at<V>(map: Map<string, V>, key: string, make: () => V): V {
  const found = map.get(key) ?? make();
  map.set(key, found);
  return found;
}

function forget(map: Map<string, Pick<Set<string>, 'delete' | 'size'>>, key: string, inner: string): void {
  const found = map.get(key);
  found?.delete(inner);
  if (found?.size === 0) map.delete(key);
}
