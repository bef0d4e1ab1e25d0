/**
 * Which receipts are kept. Their number is bounded for the cluster; beyond it the oldest of the nodes that have the
 * most go first, so that one node that talks much, or lies, pushes nobody else's out.
 */
export interface KeptReceipt {
  nodeId: string;
  /** In the store. */
  key: string;
}

export class KeptReceipts {
  readonly #max: number;
  /** Store keys by node, the oldest first. */
  readonly #byNode = new Map<string, string[]>();
  #total = 0;

  /** @param max of the cluster. */
  constructor(max: number) {
    this.#max = max;
  }

  add(added: readonly KeptReceipt[]): void {
    for (const { nodeId, key } of added) {
      const keys = this.#byNode.get(nodeId) ?? [];
      keys.push(key);
      this.#byNode.set(nodeId, keys);
    }
    this.#total += added.length;
  }

  /** What would have to go if these came in; some of them may be among it. */
  surplusWith(added: readonly KeptReceipt[]): KeptReceipt[] {
    if (this.#total + added.length <= this.#max) return [];
    const all = new Map([...this.#byNode].map(([nodeId, keys]) => [nodeId, [...keys]]));
    for (const { nodeId, key } of added) all.set(nodeId, [...(all.get(nodeId) ?? []), key]);
    const counts = [...all.values()].map((keys) => keys.length);
    const level = levelFor(counts, this.#max);
    let spare = this.#max - totalAt(level, counts);
    return [...all].flatMap(([nodeId, keys]) => {
      if (keys.length <= level) return [];
      const kept = level + (spare-- > 0 ? 1 : 0);
      return keys.slice(0, keys.length - kept).map((key) => ({ nodeId, key }));
    });
  }

  remove(removed: readonly KeptReceipt[]): void {
    const gone = new Set(removed.map(({ key }) => key));
    for (const nodeId of new Set(removed.map((one) => one.nodeId))) {
      const keys = this.#byNode.get(nodeId) ?? [];
      const left = keys.filter((key) => !gone.has(key));
      this.#total -= keys.length - left.length;
      if (left.length === 0) this.#byNode.delete(nodeId);
      else this.#byNode.set(nodeId, left);
    }
  }
}

/** The largest number that each may keep, so that all together have not more than `max`. */
function levelFor(counts: readonly number[], max: number): number {
  let fits = 0;
  for (let tooMany = max + 1; tooMany - fits > 1;) {
    const level = Math.floor((fits + tooMany) / 2);
    if (totalAt(level, counts) <= max) fits = level;
    else tooMany = level;
  }
  return fits;
}

function totalAt(level: number, counts: readonly number[]): number {
  return counts.reduce((sum, count) => sum + Math.min(count, level), 0);
}
