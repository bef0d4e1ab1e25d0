/** A manager's store from its folder to etcd: everything, or nothing that counts. */
import { create } from '@bufbuild/protobuf';
import { hostname } from 'node:os';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Arena } from '../crypto/arena.js';
import { drawKey, exchangeKeyOf, sharedKey } from '../crypto/exchange.js';
import { readKeyFile, writeKeyFile } from '../crypto/key_file.js';
import { recordSealer } from '../crypto/record_box.js';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { leafOf } from '../pki/chain.js';
import { ManagerRecordSchema } from '../proto/gen/inro/v1/records_pb.js';
import { fillEtcdStore, openEtcdStore } from '../store/etcd.js';
import type { EtcdTarget } from '../store/etcd_client.js';
import { openLmdbStore } from '../store/lmdb.js';
import type { Entry } from '../store/store.js';
import { encodeRecord, tables } from '../store/tables.js';
import { moveFile, readFileIfThere } from '../system/files.js';
import { sealSharedFiles } from './shared_keys.js';

export interface MigrateOptions {
  /** It is claimed: its manager does not run. */
  folder: string;
  etcd: EtcdTarget;
  prefix: string;
  arena: Arena;
  clock: Clock;
  random: Random;
}

/**
 * May be repeated after it was cut off. The embedded store stays, under another name.
 * @returns how many records were moved, and where the former store lies.
 * @throws not_found when the folder has no store; already_exists when there is something below the prefix; whatever stores throw.
 */
export async function migrateToEtcd({
  folder,
  etcd,
  prefix,
  arena,
  clock,
  random,
}: MigrateOptions): Promise<{ entries: number; former: string }> {
  const path = join(folder, 'store');
  const former = join(folder, 'store.migrated');
  const certificatePem = readFileIfThere(join(folder, 'manager.crt'));
  if (!existsSync(path) || certificatePem === undefined) {
    const isDone = existsSync(former);
    throw new InroError('not_found', `there is no manager with a store of its own in ${folder}`, {
      remedy: isDone
        ? `it was moved before: start the manager with --store; the former one is ${former}`
        : 'name the state folder of the manager: --state DIR (it must have run once)',
    });
  }
  for (const name of ['store.key', 'exchange.key'])
    if (!existsSync(join(folder, name))) drawInto(join(folder, name), arena);
  const [key, exchange] = ['store.key', 'exchange.key'].map((name) => readKeyFile(join(folder, name), arena));
  if (key === undefined || exchange === undefined) throw new InroError('internal', 'two keys were read');
  const sealing = exchangeKeyOf(readKeyFile(join(folder, 'sealing.key'), arena));
  const exchangeKey = exchangeKeyOf(exchange).publicKey;
  const shared = sharedKey(exchangeKey, sealing.secret, arena);
  const store = openLmdbStore(path);
  try {
    const id = leafOf(certificatePem).nodeId;
    const files = sealSharedFiles(folder, shared, arena);
    const joinedMs = BigInt(clock.now());
    const record = create(ManagerRecordSchema, { id, hostname: hostname(), joinedMs, exchangeKey, files });
    const target = { ...etcd, prefix, sealer: recordSealer(key), clock, random };
    let count = 0;
    await store.snapshot(async (revision, entries) => {
      const all = async function* (): AsyncGenerator<Entry> {
        for await (const entry of entries) {
          count++;
          yield entry;
        }
        const value = encodeRecord(tables.managers, record);
        yield { key: tables.managers.prefix + id, value, revision };
      };
      await fillEtcdStore(target, revision, all());
    });
    // What was written is read, before the former one is put aside.
    const moved = await openEtcdStore({ ...target, isReadOnly: true });
    try {
      if ((await moved.revision()) !== (await store.revision()))
        throw new InroError('store_corrupt', 'what lies in etcd now is not what was moved there');
    } finally {
      await moved.close();
    }
    await store.close();
    rmSync(former, { recursive: true, force: true });
    moveFile(path, former);
    return { entries: count, former };
  } finally {
    await store.close().catch(() => undefined);
    for (const one of [shared, sealing.secret, key, exchange]) one.wipe();
  }
}

function drawInto(path: string, arena: Arena): void {
  const key = drawKey(arena);
  try {
    writeKeyFile(path, key, arena);
  } finally {
    key.wipe();
  }
}
