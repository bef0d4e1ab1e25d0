/** What a simulation knows of the disk, whatever becomes of managers: each commit as it is decided. */
import { assignmentOf } from '../../src/manager/assignment.js';
import { leaseOf } from '../../src/manager/version_lease.js';
import { ClusterView, type ViewChange } from '../../src/manager/view.js';
import type { Change, Store } from '../../src/store/store.js';
import { tables, versionKey } from '../../src/store/tables.js';

export class Mirror {
  readonly view: ClusterView;
  readonly #tell: (change: Change) => void;
  /** `node/secret@version`: a task of the node was to have it, at some moment. */
  readonly justified = new Set<string>();
  /** By task: what its files were to be at some moment. */
  readonly #sets = new Map<string, Set<string>>();
  /** By version, also of those that are deleted: ms. */
  readonly leases = new Map<string, number>();
  /** By version, also of those that are deleted: the digest of its ciphertext, in hex. */
  readonly digests = new Map<string, string>();
  /** Versions that were revoked, for ever. */
  readonly revoked = new Set<string>();

  #changedVersions: string[] = [];

  private constructor(view: ClusterView, tell: (change: Change) => void) {
    this.view = view;
    this.#tell = tell;
    view.onChange((change) => this.#note(change));
  }

  static async open(): Promise<Mirror> {
    let tell: (change: Change) => void = () => undefined;
    const store: Pick<Store, 'list' | 'revision' | 'watch'> = {
      list: async () => [],
      revision: async () => 0,
      watch: (listener) => {
        tell = listener;
        return () => undefined;
      },
    };
    const view = await ClusterView.follow(store as Store);
    return new Mirror(view, (change) => tell(change));
  }

  commit(change: Change): void {
    const { prefix } = tables.versions;
    this.#changedVersions = change.puts.flatMap(({ key }) =>
      key.startsWith(prefix) ? [key.slice(prefix.length)] : [],
    );
    this.#tell(change);
  }

  /** Whether these files were to be a task's at some moment; those of revoked versions may be missing. */
  wasToBe(taskId: string, files: readonly { target: string; secretId: string; version: number }[]): boolean {
    const shown = new Set(
      files.map(({ target, secretId, version }) => `${target}=${versionKey(secretId, version)}`),
    );
    return [...(this.#sets.get(taskId) ?? [])].some((set) => {
      const wanted = set === '' ? [] : set.split(' ');
      const missing = wanted.filter((one) => !shown.has(one));
      const isWhole = missing.every((one) => this.revoked.has(one.slice(one.indexOf('=') + 1)));
      return isWhole && wanted.length - missing.length === shown.size;
    });
  }

  #note({ nodeIds }: ViewChange): void {
    const { view } = this;
    for (const key of this.#changedVersions) {
      const record = view.version(...partsOf(key));
      if (record === undefined) continue;
      this.leases.set(key, leaseOf(record));
      this.digests.set(key, Buffer.from(record.ciphertextDigest).toString('hex'));
      if (record.revokedMs > 0n) this.revoked.add(key);
    }
    for (const nodeId of nodeIds) {
      const { tasks, versions } = assignmentOf(view, nodeId);
      for (const key of versions.keys()) this.justified.add(`${nodeId}/${key}`);
      for (const [id, { references = [] }] of tasks) {
        const files = references.map(
          ({ reference, version = 0 }) =>
            `${reference?.target ?? ''}=${versionKey(reference?.secretId ?? '', version)}`,
        );
        const sets = this.#sets.get(id) ?? new Set();
        this.#sets.set(id, sets.add(files.sort().join(' ')));
      }
    }
  }
}

function partsOf(key: string): [secretId: string, version: number] {
  const [secretId = '', version = ''] = key.split('/');
  return [secretId, Number(version)];
}
