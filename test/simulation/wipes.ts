/** Each copy that a node has wiped, until its receipt is kept: a removed copy ends in a receipt, or with its host's memory. */
import type { Generation } from '../../src/agent/mount/driver.js';
import type { Wiped } from '../../src/agent/vault.js';
import { versionKey } from '../../src/store/tables.js';
import type { KeptMemory } from './kept_memory.js';
import type { NodeHost } from './node_host.js';

export interface Copy extends Wiped {
  nodeId: string;
}

export class Wipes {
  readonly #say: (words: string) => void;
  /** By memory that still could say so. */
  readonly #open = new Map<KeptMemory, Copy[]>();

  constructor(say: (words: string) => void) {
    this.#say = say;
  }

  follow(host: NodeHost, onPublish: (generation: Generation) => void): void {
    const begin = (memory: KeptMemory): void => {
      this.#open.delete(host.memory);
      const copies: Copy[] = [];
      this.#open.set(memory, copies);
      memory.onPublish = onPublish;
    };
    begin(host.memory);
    host.onMemory = (before, memory) => {
      this.#open.delete(before);
      begin(memory);
    };
    host.onWiped = (wiped) => {
      this.#say(`${host.name} wipes ${versionKey(wiped.secretId, wiped.version)}: ${wiped.reason}`);
      this.#open.get(host.memory)?.push({ ...wiped, nodeId: host.nodeId });
    };
  }

  /** Those that must have a receipt by now. */
  open(): Copy[] {
    return [...this.#open.values()].flat();
  }
}
