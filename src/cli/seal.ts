/** Sealing a value on the terminal's side: what leaves this process is ciphertext and a wrapped content key. */
import type { Arena } from '../crypto/arena.js';
import { digestOf, sealValue, submitContentKey } from '../crypto/envelope.js';
import { generateValue, type ValueFormat } from '../crypto/generate.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { InroError } from '../model/error.js';
import { checkedSealingKey } from '../pki/sealing_key.js';
import { Control, type Cluster } from '../proto/gen/inro/v1/control_pb.js';
import { call, type Connection } from '../rpc/client.js';
import { addon } from '../system/addon.js';
import { systemClock } from '../system/clock.js';
import { openArenas, type Arenas } from './value_arenas.js';
import { readValue } from './value_input.js';

/** Room for the value twice (as read, as kept) and for keys. */
const arenaBytes = 3 * 1024 * 1024;

/** From where a value comes: a path or `-`; or it is drawn; or whoever has it puts it into the arena. */
export type ValueSource =
  { file: string } | { generate: ValueFormat } | { read: (arena: Arena) => Plaintext };

/** One for all values of a command: each is wiped before the next one comes. */
let arenas: Arenas | undefined;

/**
 * @param cluster what the manager says of it, when it has been asked already
 * @throws bad_input, too_large, unauthenticated when the sealing key is not vouched for.
 */
export async function sealFrom(
  source: ValueSource,
  connection: Connection,
  { secretId, version }: { secretId: string; version: number },
  cluster?: Cluster,
): Promise<{ ciphertext: Uint8Array; sealedKey: Uint8Array }> {
  addon().forbidDumps();
  const {
    id: clusterId,
    rootPem,
    sealingKey,
  } = cluster ?? (await call(connection, Control, 'getCluster', {}));
  if (connection.root !== undefined && connection.root.clusterId !== clusterId) {
    throw new InroError(
      'foreign_cluster',
      `the manager is of cluster ${clusterId}, and the identity of ${connection.root.clusterId}`,
      {
        remedy: 'use the identity of that cluster: --identity FILE',
      },
    );
  }
  // Whoever owns the socket vouches for the root himself; on a network the identity does.
  const trusted = connection.root?.pem ?? rootPem;
  if (sealingKey === undefined) throw new InroError('protocol', 'the manager sent no sealing key');
  const publicKey = checkedSealingKey(sealingKey, { rootPem: trusted, clusterId, now: systemClock.now() });
  const { arena, larger } = (arenas ??= openArenas(arenaBytes));
  const value = valueOf(source, arena, larger);
  try {
    const { ciphertext, contentKey } = sealValue(value, arena);
    try {
      const binding = { clusterId, secretId, version, ciphertextDigest: digestOf(ciphertext) };
      return { ciphertext, sealedKey: submitContentKey(contentKey, binding, publicKey, arena) };
    } finally {
      contentKey.wipe();
    }
  } finally {
    value.wipe();
  }
}

/** The caller wipes. */
function valueOf(source: ValueSource, arena: Arena, larger: () => Arena): Plaintext {
  if ('generate' in source) return generateValue(source.generate, arena);
  if ('file' in source) return readValue(source.file, arena, larger);
  try {
    return source.read(arena);
  } catch (error) {
    if (!(error instanceof InroError) || error.code !== 'arena_full') throw error;
    return source.read(larger());
  }
}
