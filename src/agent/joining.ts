/**
 * The key of a join that is not over: `joining.key`. It becomes `node.key` when its certificate is on disk. A host that asks
 * again after a crash, or while it waits for approval, asks with this key, and is taken for the same node.
 */
import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { readPrivateFile, writePrivateFile } from '../crypto/at_rest.js';
import { generateNodeKey, publicKeyOf, readPrivateKey, type KeyObject } from '../crypto/signing.js';
import { leafOf } from '../pki/chain.js';
import { makeStateFolder, readFileIfThere } from '../system/files.js';
import { joiningFile } from './identity.js';

const keyOf = (folder: string): string => join(folder, joiningFile);

/** On disk before a certificate is asked for it. @throws state_unusable. */
export function joiningKey(folder: string): KeyObject {
  makeStateFolder(folder);
  const begun = readPrivateFile(keyOf(folder));
  const key = begun === undefined ? undefined : readable(begun);
  if (key !== undefined) return key;
  const { privateKey, privatePem } = generateNodeKey();
  writePrivateFile(keyOf(folder), privatePem);
  return privateKey;
}

/** The next join draws another key. */
export function forgetJoining(folder: string): void {
  rmSync(keyOf(folder), { force: true });
}

/** Takes the key into use if the certificate in the folder is for it: also after a stop between two writes. */
export function finishJoining(folder: string): void {
  const pem = readPrivateFile(keyOf(folder));
  const certificatePem = readFileIfThere(join(folder, 'node.crt'));
  if (pem === undefined || certificatePem === undefined) return;
  const key = readable(pem);
  if (key === undefined || !isFor(certificatePem, key)) return;
  renameSync(keyOf(folder), join(folder, 'node.key'));
}

function isFor(certificatePem: string, key: KeyObject): boolean {
  try {
    return leafOf(certificatePem).publicKey.equals(publicKeyOf(key));
  } catch {
    return false; // whoever loads it says what is wrong with it
  }
}

/** Undefined for what a write that was cut off has left. */
function readable(pem: string): KeyObject | undefined {
  try {
    return readPrivateKey(pem);
  } catch {
    return undefined;
  }
}
