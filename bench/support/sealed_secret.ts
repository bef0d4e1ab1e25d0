/** A secret as an operator's program handles it: each version is sealed here, and only then sent. */
import { randomBytes } from 'node:crypto';
import { openArena } from '../../src/crypto/arena.js';
import { digestOf, sealValue, submitContentKey } from '../../src/crypto/envelope.js';
import { newId } from '../../src/model/id.js';
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import { call, type Connection } from '../../src/rpc/client.js';

const arenaBytes = 1 << 20;

export class SealedSecret {
  readonly #id: string;
  readonly #name: string;
  readonly #sealingKey: Uint8Array;
  readonly #clusterId: string;
  readonly #arena = openArena(arenaBytes);
  version = 0;

  private constructor(id: string, name: string, sealingKey: Uint8Array, clusterId: string) {
    this.#id = id;
    this.#name = name;
    this.#sealingKey = sealingKey;
    this.#clusterId = clusterId;
  }

  static async create(operator: Connection, name: string, value: Uint8Array): Promise<SealedSecret> {
    const { id: clusterId, sealingKey } = await call(operator, Control, 'getCluster', {});
    const publicKey = sealingKey?.publicKey ?? new Uint8Array();
    const secret = new SealedSecret(newId(randomBytes), name, publicKey, clusterId);
    await call(operator, Control, 'createSecret', { id: secret.#id, name, ...secret.#seal(value) });
    return secret;
  }

  get reference() {
    return { secretName: this.#name, target: 'key', uid: '0', gid: '0', mode: 0o444 };
  }

  async update(operator: Connection, value: Uint8Array): Promise<void> {
    const sealed = this.#seal(value);
    await call(operator, Control, 'updateSecret', { id: this.#id, version: this.version, ...sealed });
  }

  #seal(bytes: Uint8Array) {
    this.version += 1;
    const value = this.#arena.take(bytes.length);
    value.expose().set(bytes);
    const { ciphertext, contentKey } = sealValue(value, this.#arena);
    const ciphertextDigest = digestOf(ciphertext);
    const binding = {
      clusterId: this.#clusterId,
      secretId: this.#id,
      version: this.version,
      ciphertextDigest,
    };
    const sealedKey = submitContentKey(contentKey, binding, this.#sealingKey, this.#arena);
    value.wipe();
    contentKey.wipe();
    return { ciphertext, sealedKey };
  }
}
