/**
 * The values this node holds, one copy of each version however many tasks use it. Bookkeeping only: the
 * bytes are in the arena, and each way out of here wipes them and leaves a record of it.
 */
import type { Arena } from '../crypto/arena.js';
import { digestOf, openValue, unwrap } from '../crypto/envelope.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { constantTimeEqual } from '../crypto/signing.js';
import type { Clock } from '../model/clock.js';
import { InroError } from '../model/error.js';
import type { WipeReason } from '../model/receipt.js';
import { agentLimits } from './limits.js';
import type { DeliveredVersion } from '../proto/gen/inro/v1/dispatcher_pb.js';

export interface HeldVersion {
  secretId: string;
  version: number;
  ciphertextDigest: Uint8Array;
  createdMs: number;
  /** How much later than the node's lease its own ends; negative: earlier. */
  leaseShiftMs: number;
  value: Plaintext;
}

export interface Wiped {
  secretId: string;
  version: number;
  /** Tasks that this copy was for, the latest at the end; it may have been for more of them. */
  taskIds: readonly string[];
  reason: WipeReason;
  wipedMs: number;
  /** Measured around the wipe alone. */
  durationUs: number;
  /** The kernel had not let go of mapped pages when it returned. */
  mapped: boolean;
}

export function heldKey(secretId: string, version: number): string {
  return `${secretId}@${version}`;
}

export class Vault {
  readonly #arena: Arena;
  readonly #clock: Clock;
  readonly #onWiped: (wiped: Wiped) => void;
  readonly #held = new Map<string, HeldVersion>();
  /** By key: the tasks that show it, or have. */
  readonly #usedBy = new Map<string, string[]>();
  readonly #retiring = new Map<string, { cancel(): void }>();

  constructor(arena: Arena, clock: Clock, onWiped: (wiped: Wiped) => void) {
    this.#arena = arena;
    this.#clock = clock;
    this.#onWiped = onWiped;
  }

  /** Everything whose bytes are here, for the Hello; what is on its way out cannot be relied on. */
  holdings(): (HeldVersion & { retiring: boolean })[] {
    return [...this.#held].map(([key, held]) => ({ ...held, retiring: this.#retiring.has(key) }));
  }

  keys(): string[] {
    return [...this.#held.keys()];
  }

  get size(): number {
    return this.#held.size;
  }

  get(key: string): HeldVersion | undefined {
    return this.#held.get(key);
  }

  /** A task shows it from now on. */
  use(key: string, taskId: string): void {
    if (!this.#held.has(key)) return;
    const others = (this.#usedBy.get(key) ?? []).filter((one) => one !== taskId);
    this.#usedBy.set(key, [...others, taskId].slice(-agentLimits.maxTasksPerReceipt));
  }

  isRetiring(key: string): boolean {
    return this.#retiring.has(key);
  }

  /** A version that was on its way out is wanted again. */
  keep(key: string): void {
    this.#retiring.get(key)?.cancel();
    this.#retiring.delete(key);
  }

  /**
   * Decrypts a delivery straight into the arena.
   * @throws envelope when key or ciphertext belong to something else or were altered; arena_full.
   */
  put(delivered: DeliveredVersion, clusterId: string, sessionKey: Plaintext): void {
    const { secretId, version, ciphertext, sealedKey, createdMs } = delivered;
    const ciphertextDigest = digestOf(ciphertext);
    if (!constantTimeEqual(ciphertextDigest, delivered.ciphertextDigest)) {
      throw new InroError(
        'envelope',
        `the ciphertext of ${heldKey(secretId, version)} is not the one that was announced`,
      );
    }
    const binding = { clusterId, secretId, version, ciphertextDigest };
    const contentKey = unwrap('delivered', sealedKey, binding, sessionKey, this.#arena);
    try {
      const value = openValue(ciphertext, contentKey, this.#arena);
      this.wipe(heldKey(secretId, version), 'superseded'); // never two copies, whatever the caller looked at
      this.#held.set(heldKey(secretId, version), {
        secretId,
        version,
        ciphertextDigest,
        createdMs: Number(createdMs),
        leaseShiftMs: Number(delivered.leaseShiftMs),
        value,
      });
    } finally {
      contentKey.wipe();
    }
  }

  /** What a predecessor held. @param retiringMs how long a version that was replaced is still to be read; undefined: it is current. */
  inherit(held: HeldVersion, retiringMs: number | undefined): void {
    const key = heldKey(held.secretId, held.version);
    this.#held.set(key, held);
    if (retiringMs !== undefined) this.retire(key, retiringMs);
  }

  /** Nothing is wiped by itself any more: what is held is a successor's. */
  letGo(): void {
    for (const key of this.keys()) this.keep(key);
    this.#held.clear();
    this.#usedBy.clear();
  }

  /** Wipes after the grace; until then descriptors that are open read on. */
  retire(key: string, graceMs: number): void {
    if (!this.#held.has(key) || this.#retiring.has(key)) return;
    this.#retiring.set(
      key,
      this.#clock.timer(graceMs, () => this.wipe(key, 'superseded')),
    );
  }

  wipe(key: string, reason: WipeReason): void {
    this.keep(key);
    const held = this.#held.get(key);
    if (held === undefined) return;
    const beganUs = this.#clock.monotonicUs();
    const mapped = !held.value.wipe();
    const durationUs = Math.ceil(this.#clock.monotonicUs() - beganUs);
    this.#held.delete(key);
    const { secretId, version } = held;
    const taskIds = this.#usedBy.get(key) ?? [];
    this.#usedBy.delete(key);
    const wipedMs = Math.round(this.#clock.now());
    this.#onWiped({ secretId, version, taskIds, reason, wipedMs, durationUs, mapped });
  }

  /** Those whose lease is over, given the node's deadline (ms of CLOCK_BOOTTIME). @returns their keys. */
  wipeExpired(deadlineMs: number): string[] {
    const nowMs = this.#clock.boottimeMs();
    const over = [...this.#held].filter(
      ([, { leaseShiftMs }]) => deadlineMs <= 0 || nowMs >= deadlineMs + leaseShiftMs,
    );
    for (const [key] of over) this.wipe(key, 'lease');
    return over.map(([key]) => key);
  }

  wipeAll(reason: WipeReason): void {
    for (const key of this.keys()) this.wipe(key, reason);
  }
}
