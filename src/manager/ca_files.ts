/**
 * The files of a CA that takes another one's place: `ca-next.key` and `ca-next.crt`, until the store says that it signs; then they
 * become ca.key and ca.crt, and the key before is gone: nothing needs it any more.
 */
import { join } from 'node:path';
import { isWrapped, writePrivateFile } from '../crypto/at_rest.js';
import type { Brought } from '../pki/brought.js';
import { moveFile, readFileIfThere, removeFile, replaceFile } from '../system/files.js';

const nextKey = (folder: string): string => join(folder, 'ca-next.key');
const nextCertificate = (folder: string): string => join(folder, 'ca-next.crt');

/** @throws state_unusable. */
export function saveNextCa(folder: string, { certPem, keyPem }: Brought): void {
  writePrivateFile(nextKey(folder), keyPem);
  replaceFile(nextCertificate(folder), certPem, 0o600);
}

/** May be repeated after it was cut off. @throws state_unusable. */
export function adoptNextCa(folder: string): void {
  if (isWrapped(nextKey(folder)) !== undefined) moveFile(nextKey(folder), join(folder, 'ca.key'));
  moveFile(nextCertificate(folder), join(folder, 'ca.crt'));
}

/** @throws state_unusable. */
export function dropNextCa(folder: string): void {
  removeFile(nextCertificate(folder));
  removeFile(nextKey(folder));
}

/** After a stop in between. @param isInStore whether the store says that this one signs. @throws state_unusable. */
export function settleNextCa(folder: string, isInStore: (certPem: string) => boolean): void {
  const certPem = readFileIfThere(nextCertificate(folder));
  if (certPem !== undefined && isInStore(certPem)) adoptNextCa(folder);
  else if (certPem !== undefined || isWrapped(nextKey(folder)) !== undefined) dropNextCa(folder);
}
