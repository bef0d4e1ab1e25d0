/**
 * The files that all managers of a cluster have, from one's folder to another's: private keys are sealed to the receiver by the cluster's
 * sealing key, so that a store in between neither reads nor makes one.
 */
import { create } from '@bufbuild/protobuf';
import { basename, join } from 'node:path';
import type { Arena } from '../crypto/arena.js';
import { isWrapped, readPrivateBytes, writePrivateBytes } from '../crypto/at_rest.js';
import type { Plaintext } from '../crypto/plaintext.js';
import { boxTag, openBox, sealBox } from '../crypto/secretbox.js';
import { InroError } from '../model/error.js';
import { SharedFileSchema, type SharedFile } from '../proto/gen/inro/v1/common_pb.js';
import { readFileIfThere, removeFile, replaceFile } from '../system/files.js';

const privateNames = ['ca.key', 'ca-next.key', 'sealing.key', 'data.key', 'data-next.key', 'store.key'];
const publicNames = ['ca.crt', 'ca-next.crt'];

/** @param shared what sealing key and receiver share; the caller's to wipe. */
export function sealSharedFiles(folder: string, shared: Plaintext, arena: Arena): SharedFile[] {
  const own = privateNames.flatMap((name) => {
    const content = readPrivateBytes(join(folder, name), arena);
    if (content === undefined) return [];
    try {
      const box = sealBox(boxTag.managerKey, content, shared);
      return [create(SharedFileSchema, { name, content: box, boxed: true })];
    } finally {
      content.wipe();
    }
  });
  const others = publicNames.flatMap((name) => {
    const text = readFileIfThere(join(folder, name));
    return text === undefined ? [] : [create(SharedFileSchema, { name, content: Buffer.from(text) })];
  });
  return [...own, ...others];
}

/**
 * Makes a folder's shared files these. May be repeated after it was cut off.
 * @throws envelope for what was not sealed by this cluster for this manager; state_unusable.
 */
export function installSharedFiles(
  folder: string,
  files: readonly SharedFile[],
  shared: Plaintext,
  arena: Arena,
): void {
  for (const { name, content, boxed } of files) {
    const isKnown = (boxed ? privateNames : publicNames).includes(name);
    if (!isKnown || basename(name) !== name)
      throw new InroError('envelope', `the managers share no file ${JSON.stringify(name)}`);
    if (boxed) installPrivate(join(folder, name), content, shared, arena);
    else if (readFileIfThere(join(folder, name)) !== Buffer.from(content).toString())
      replaceFile(join(folder, name), content, 0o600);
  }
  const isGone = (name: string): boolean => files.every((file) => file.name !== name);
  for (const name of privateNames.filter(isGone))
    if (isWrapped(join(folder, name)) !== undefined) removeFile(join(folder, name));
  for (const name of publicNames.filter(isGone)) removeFile(join(folder, name));
}

function installPrivate(path: string, box: Uint8Array, shared: Plaintext, arena: Arena): void {
  const content = openBox(boxTag.managerKey, box, shared, arena);
  try {
    const present = readPrivateBytes(path, arena);
    const isSame = present !== undefined && Buffer.compare(present.expose(), content.expose()) === 0;
    present?.wipe();
    if (!isSame) writePrivateBytes(path, content);
  } finally {
    content.wipe();
  }
}
