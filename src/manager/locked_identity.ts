/**
 * The certificate by which a locked manager says that it is locked. Its key lies in clear, beside the wrapped ones: who has it can say that
 * a manager is locked, and nothing else; no agent or operator takes it for a manager.
 */
import { join } from 'node:path';
import type { Logger } from 'pino';
import { generateNodeKey } from '../crypto/signing.js';
import { newId } from '../model/id.js';
import type { Clock, Random } from '../model/clock.js';
import { leafOf } from '../pki/chain.js';
import { createCsr } from '../pki/csr.js';
import { lockedRole } from '../pki/role.js';
import { parseFile, readFileIfThere, removeFile, replaceFile } from '../system/files.js';
import type { Authorities } from './authorities.js';

export interface LockedIdentity {
  certificatePem: string;
  keyPem: string;
}

const keyIn = (folder: string): string => join(folder, 'locked.key');
const certificateIn = (folder: string): string => join(folder, 'locked.crt');

/** Undefined where there is none. */
export function readLockedIdentity(folder: string): LockedIdentity | undefined {
  const [keyPem, certificatePem] = [readFileIfThere(keyIn(folder)), readFileIfThere(certificateIn(folder))];
  return keyPem === undefined || certificatePem === undefined ? undefined : { certificatePem, keyPem };
}

export interface LockedIdentityParts {
  folder: string;
  authority: Pick<Authorities, 'issue' | 'hasSigned' | 'isExternal'>;
  clock: Clock;
  random: Random;
  log: Logger;
}

/** Makes one where there is none of the present CA that lasts; an external CA is not asked for it. */
export async function keepLockedIdentity(parts: LockedIdentityParts): Promise<void> {
  const { folder, authority, clock, random, log } = parts;
  if (authority.isExternal || isGood(parts)) return;
  try {
    const { privateKey, privatePem } = generateNodeKey();
    const csr = createCsr(privateKey);
    const { chainPem } = await authority.issue({ csr, nodeId: newId(random), role: lockedRole });
    replaceFile(certificateIn(folder), chainPem, 0o600);
    replaceFile(keyIn(folder), privatePem, 0o600);
  } catch (error) {
    log.warn(
      { err: error, at: clock.now() },
      'while it is locked, this manager will not be able to say so to agents',
    );
  }
}

export function dropLockedIdentity(folder: string): void {
  removeFile(keyIn(folder));
  removeFile(certificateIn(folder));
}

function isGood({ folder, authority, clock }: LockedIdentityParts): boolean {
  const own = readLockedIdentity(folder);
  if (own === undefined) return false;
  const { notBeforeMs, notAfterMs } = parseFile(
    certificateIn(folder),
    own.certificatePem,
    leafOf,
    'remove it',
  );
  const certificate = leafOf(own.certificatePem);
  return authority.hasSigned(certificate) && clock.now() < (notBeforeMs + notAfterMs) / 2;
}
