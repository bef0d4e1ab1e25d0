/**
 * What a manager does with its store, whatever is around it: follows it, speaks with the nodes, places tasks, notes who holds
 * what. Listening, certificates of its own, operators' calls and backups are its surroundings.
 */
import { Clones, type ClonesParts } from './clones.js';
import { Dispatcher, type DispatcherParts } from './dispatcher.js';
import { Ledger } from './ledger.js';
import { NodeRemoval } from './node_removal.js';
import { NodeWatch } from './node_watch.js';
import { ReadBook } from './read_book.js';
import { Scheduler } from './scheduler.js';

export type ManagerCoreParts = Omit<DispatcherParts, 'ledger' | 'reads' | 'clones'> &
  Pick<ClonesParts, 'audit'>;

export class ManagerCore {
  readonly ledger: Ledger;
  readonly reads: ReadBook;
  readonly clones: Clones;
  readonly dispatcher: Dispatcher;
  readonly nodeStates: NodeWatch;
  readonly scheduler: Scheduler;
  readonly removal: NodeRemoval;
  #watching: Promise<void> | undefined;

  private constructor(parts: ManagerCoreParts, ledger: Ledger) {
    this.ledger = ledger;
    this.reads = new ReadBook(parts);
    this.clones = new Clones(parts);
    const { reads, clones } = this;
    this.dispatcher = new Dispatcher({ ...parts, ledger, reads, clones });
    const { dispatcher } = this;
    const onChanged = (nodeIds: readonly string[]): void => this.scheduler.nodesChanged(nodeIds);
    this.nodeStates = new NodeWatch({ ...parts, dispatcher, onChanged });
    this.scheduler = new Scheduler({ ...parts, nodes: this.nodeStates });
    dispatcher.onNodeReady = () => this.nodeStates.lookSoon();
    this.removal = new NodeRemoval({ ...parts, ledger, dispatcher });
  }

  /** @throws store_corrupt */
  static async open(parts: ManagerCoreParts): Promise<ManagerCore> {
    return new ManagerCore(parts, await Ledger.open(parts));
  }

  /** From now on nodes that come or go are noticed. */
  watchNodes(): void {
    this.#watching ??= this.nodeStates.watch();
  }

  /** When the streams are over. Ends when what was asked for is written; nothing is, after it. */
  async stop(): Promise<void> {
    this.nodeStates.stop();
    await this.#watching;
    await this.scheduler.stop();
    await this.reads.stop();
    await this.ledger.stop();
  }
}
