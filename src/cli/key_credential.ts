/** The key that wraps private keys on disk, from a credential of the unit (systemd.exec(5) LoadCredentialEncrypted=). */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { openWrappingArena, wrappingKeyBytes, wrapWith } from '../crypto/at_rest.js';
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';
import { credentialPath } from './credential_path.js';

export interface KeyOptions {
  keyCredential?: string;
  unwrapKeys?: boolean;
}

/** For the whole process, before anything reads a key. @throws bad_input. */
export function useKeyCredential(
  { keyCredential: name, unwrapKeys: unwraps = false }: KeyOptions,
  env: NodeJS.ProcessEnv = process.env,
): void {
  if (name === undefined) {
    if (!unwraps) return;
    throw new InroError('bad_input', '--unwrap-keys needs the key that they were wrapped by', {
      remedy: 'give --key-credential NAME, too',
    });
  }
  const remedy = `make one: head -c ${wrappingKeyBytes} /dev/urandom | systemd-creds encrypt --name=${name} - /etc/inro/${name}.cred, and write LoadCredentialEncrypted=${name}:/etc/inro/${name}.cred into the unit`;
  const path = credentialPath(name, env, remedy);
  const arena = openWrappingArena();
  // One byte more than it may have, to see that it ends there.
  const read = arena.take(wrappingKeyBytes + 1);
  try {
    const length = readInto(path, name, read.expose(), remedy);
    if (length !== wrappingKeyBytes) {
      throw new InroError(
        'bad_input',
        `the credential ${quoted(name)} has ${length > wrappingKeyBytes ? 'more than ' : ''}${Math.min(length, wrappingKeyBytes)} bytes instead of ${wrappingKeyBytes}`,
        { remedy },
      );
    }
    const key = arena.take(wrappingKeyBytes);
    key.expose().set(read.expose().subarray(0, wrappingKeyBytes));
    wrapWith({ key, arena, name: `the credential ${name}`, unwraps });
  } finally {
    read.wipe();
  }
}

function readInto(path: string, name: string, bytes: Uint8Array, remedy: string): number {
  try {
    const descriptor = openSync(path, 'r');
    try {
      if (!fstatSync(descriptor).isFile()) throw new Error('it is no file');
      let length = 0;
      for (let some = -1; some !== 0 && length < bytes.length; length += some)
        some = readSync(descriptor, bytes, length, bytes.length - length, null);
      return length;
    } finally {
      closeSync(descriptor);
    }
  } catch (cause) {
    throw new InroError(
      'bad_input',
      `the credential ${quoted(name)} cannot be read: ${(cause as Error).message}`,
      {
        remedy,
        cause,
      },
    );
  }
}
