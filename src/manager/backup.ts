/** Making a backup while the manager runs: the store as it is at one moment, and the files that belong to it, sealed. */
import { create } from '@bufbuild/protobuf';
import { basename } from 'node:path';
import type { Arena } from '../crypto/arena.js';
import { readPrivateBytes } from '../crypto/at_rest.js';
import { drawKey } from '../crypto/exchange.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { SealedWriter } from '../crypto/sealed_stream.js';
import { boxTag, sealBox } from '../crypto/secretbox.js';
import type { Clock } from '../model/clock.js';
import {
  BackupEntrySchema,
  BackupFileSchema,
  BackupHeadSchema,
  BackupItemSchema,
  type BackupFile,
  type BackupItem,
} from '../proto/gen/inro/v1/backup_pb.js';
import type { Store } from '../store/store.js';
import { readFileIfThere } from '../system/files.js';
import { version } from '../system/version.js';
import { publicFilesIn } from './backup_files.js';
import { backupMagic, digestOfHead, headBytes, itemBytes, withLength } from './backup_format.js';
import { privateFilesIn } from './private_files.js';

export interface BackupParts {
  folder: string;
  clusterId: string;
  store: Store;
  arena: Arena;
  clock: Clock;
}

/**
 * @param key what it is sealed under. @param isUnlockKey whether that is this manager's.
 * @param send is given the file's bytes, one piece after the other. @returns how many entries the store had.
 */
export async function makeBackup(
  { folder, clusterId, store, arena, clock }: BackupParts,
  { key, isUnlockKey }: { key: Plaintext; isUnlockKey: boolean },
  send: (bytes: Uint8Array) => Promise<void>,
): Promise<number> {
  const own = drawKey(arena);
  const writer = new SealedWriter(own, arena);
  try {
    return await store.snapshot(async (revision, entries) => {
      // In the same step as the snapshot: no file is younger than what it has.
      const files = filesOf(folder, own, arena);
      const head = headBytes(
        create(BackupHeadSchema, {
          clusterId,
          createdMs: BigInt(clock.now()),
          inroVersion: version,
          revision: BigInt(revision),
          sealedKey: sealBox(boxTag.backupKey, own, key),
          autolock: isUnlockKey,
        }),
      );
      await send(Buffer.concat([backupMagic, withLength(head)]));
      let items = 0;
      const put = async (item: BackupItem['item']): Promise<void> => {
        items++;
        for (const box of writer.write(itemBytes(create(BackupItemSchema, { item }))))
          await send(withLength(box));
      };
      await put({ case: 'headDigest', value: digestOfHead(head) });
      for (const file of files) await put({ case: 'file', value: file });
      let count = 0;
      for await (const entry of entries) {
        await put({
          case: 'entry',
          value: create(BackupEntrySchema, { ...entry, revision: BigInt(entry.revision) }),
        });
        count++;
      }
      await put({ case: 'count', value: BigInt(items) });
      await send(withLength(writer.end()));
      return count;
    });
  } finally {
    writer.wipe();
    own.wipe();
  }
}

function filesOf(folder: string, key: Plaintext, arena: Arena): BackupFile[] {
  const own = privateFilesIn(folder).flatMap((path) => {
    const content = readPrivateBytes(path, arena);
    if (content === undefined) return [];
    try {
      const box = sealBox(boxTag.keyFile, content, key);
      return [create(BackupFileSchema, { name: basename(path), content: box, boxed: true })];
    } finally {
      content.wipe();
    }
  });
  const others = publicFilesIn(folder).flatMap((path) => {
    const text = readFileIfThere(path);
    return text === undefined
      ? []
      : [create(BackupFileSchema, { name: basename(path), content: Buffer.from(text) })];
  });
  return [...own, ...others];
}
