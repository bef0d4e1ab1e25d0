/** A terminal's side of Control over a manager's socket, in the test's own process: many calls without a command for each. */
import { randomBytes } from 'node:crypto';
import { openArena } from '../../src/crypto/arena.js';
import { digestOf, sealValue, submitContentKey } from '../../src/crypto/envelope.js';
import { newId } from '../../src/model/id.js';
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import { call, connectUnix, type Connection } from '../../src/rpc/client.js';

const arena = openArena(8 << 20);

export class ControlClient {
  readonly connection: Connection;
  readonly #clusterId: string;
  readonly #sealingKey: Uint8Array;

  private constructor(connection: Connection, clusterId: string, sealingKey: Uint8Array) {
    this.connection = connection;
    this.#clusterId = clusterId;
    this.#sealingKey = sealingKey;
  }

  static async on(socketPath: string): Promise<ControlClient> {
    const connection = connectUnix(socketPath, 'the manager');
    const { id, sealingKey } = await call(connection, Control, 'getCluster', {});
    return new ControlClient(connection, id, sealingKey?.publicKey ?? new Uint8Array());
  }

  close(): void {
    this.connection.close();
  }

  async create(name: string, value: Uint8Array): Promise<string> {
    const id = newId(randomBytes);
    await call(this.connection, Control, 'createSecret', { id, name, ...this.seal(value, id, 1) });
    return id;
  }

  async update(id: string, version: number, value: Uint8Array): Promise<void> {
    await call(this.connection, Control, 'updateSecret', { id, version, ...this.seal(value, id, version) });
  }

  seal(
    bytes: Uint8Array,
    secretId: string,
    version: number,
  ): { ciphertext: Uint8Array; sealedKey: Uint8Array } {
    const value = arena.take(bytes.length);
    value.expose().set(bytes);
    const { ciphertext, contentKey } = sealValue(value, arena);
    try {
      const binding = {
        clusterId: this.#clusterId,
        secretId,
        version,
        ciphertextDigest: digestOf(ciphertext),
      };
      return { ciphertext, sealedKey: submitContentKey(contentKey, binding, this.#sealingKey, arena) };
    } finally {
      value.wipe();
      contentKey.wipe();
    }
  }
}
