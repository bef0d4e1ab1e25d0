/**
 * The manager's own certificate: made at the first start, made anew at a start in the second half of its life, and while
 * it runs. The CA is at hand, so a pair of files that do not belong together is no loss: it is made anew, too.
 */
import { join } from 'node:path';
import type { Logger } from 'pino';
import { readPrivateFile, writePrivateFile } from '../crypto/at_rest.js';
import { generateNodeKey, publicKeyOf, readPrivateKey } from '../crypto/signing.js';
import type { Clock, Random } from '../model/clock.js';
import { asInroError, InroError } from '../model/error.js';
import { newId } from '../model/id.js';
import type { Certificate } from '../pki/certificate.js';
import { leafOf } from '../pki/chain.js';
import { createCsr } from '../pki/csr.js';
import { issuedMs, RenewalPoint } from '../pki/renewal_point.js';
import { parseFile, readFileIfThere, replaceFile } from '../system/files.js';
import type { Authorities } from './authorities.js';
import { managerLimits } from './limits.js';

export const restore = 'restore the whole folder from a backup';

export interface OwnIdentity {
  certificatePem: string;
  keyPem: string;
}

export type OwnAuthority = Pick<Authorities, 'issue' | 'hasSigned'>;

interface IssuingParts {
  folder: string;
  authority: OwnAuthority;
  lifetimeMs: number;
  /** Of this manager's sealing key. */
  sealingName: string;
  /** For the first one; drawn if not given. */
  ownId?: string;
}

/** @throws state_unusable. */
export async function ownIdentity(
  parts: IssuingParts & { clock: Clock; random: Random },
): Promise<OwnIdentity> {
  const { folder, authority, sealingName, clock, random, ownId } = parts;
  const certificatePath = join(folder, 'manager.crt');
  const certificatePem = readFileIfThere(certificatePath);
  const certificate =
    certificatePem === undefined ? undefined : parseFile(certificatePath, certificatePem, leafOf, restore);
  const keyPem = readPrivateFile(join(folder, 'manager.key'));
  if (certificatePem !== undefined && certificate !== undefined && keyPem !== undefined) {
    // A stop between the two writes below leaves a key without its certificate.
    const key = parseFile(join(folder, 'manager.key'), keyPem, readPrivateKey, restore);
    const belong = publicKeyOf(key).equals(certificate.publicKey);
    const isWhole = belong && certificate.sealingName === sealingName && authority.hasSigned(certificate);
    const own = { certificatePem, keyPem };
    if (isWhole && isInFirstHalf(certificate, clock.now())) return own;
    const isGood = isWhole && clock.now() >= certificate.notBeforeMs && clock.now() < certificate.notAfterMs;
    try {
      return await issueOwn(parts, certificate.nodeId);
    } catch (error) {
      // An external CA that does not answer just now: it is asked again while this one is good.
      if (isGood && error instanceof InroError && error.code === 'unreachable') return own;
      throw error;
    }
  }
  return issueOwn(parts, certificate?.nodeId ?? ownId ?? newId(random));
}

export interface KeptParts {
  folder: string;
  authority: OwnAuthority;
  lifetimeMs: () => Promise<number>;
  sealingName: string;
  /** The present one. */
  certificatePem: string;
  /** Called with each new one, when it is on disk. */
  show: (own: OwnIdentity) => void;
  clock: Clock;
  random: Random;
  log: Logger;
}

export class OwnCertificate {
  readonly #parts: KeptParts;
  #certificate: Certificate;
  #point: RenewalPoint;

  constructor(parts: KeptParts) {
    this.#parts = parts;
    this.#certificate = leafOf(parts.certificatePem);
    this.#point = new RenewalPoint(this.#certificate, false, parts);
  }

  /** Renews it when it is due, until the signal aborts. What fails is tried again with the next look. */
  async keep(signal: AbortSignal): Promise<void> {
    for (;;) {
      await this.#parts.clock.sleep(managerLimits.ownRenewalCheckMs, signal);
      if (signal.aborted) return;
      if (this.#point.isOver() || !this.#parts.authority.hasSigned(this.#certificate)) await this.renew();
    }
  }

  /** Never throws: a failure is logged. */
  async renew(): Promise<void> {
    const { folder, authority, lifetimeMs, sealingName, show, log } = this.#parts;
    try {
      const issuing = { folder, authority, lifetimeMs: await lifetimeMs(), sealingName };
      const own = await issueOwn(issuing, this.#certificate.nodeId);
      show(own);
      this.#certificate = leafOf(own.certificatePem);
      this.#point = new RenewalPoint(this.#certificate, true, this.#parts);
      const { serial, notAfterMs } = this.#certificate;
      log.info(
        { serial, expires: new Date(notAfterMs).toISOString() },
        "the manager's certificate was renewed",
      );
    } catch (thrown) {
      const error = asInroError(thrown);
      const expires = new Date(this.#certificate.notAfterMs).toISOString();
      log.error(
        { err: error, remedy: error.remedy, expires },
        "the manager's certificate could not be renewed; trying again",
      );
    }
  }
}

/** A new key with each new one. @throws state_unusable; bad_certificate when the root has expired. */
async function issueOwn(
  { folder, authority, lifetimeMs, sealingName }: IssuingParts,
  nodeId: string,
): Promise<OwnIdentity> {
  const { privateKey, privatePem } = generateNodeKey();
  const csr = createCsr(privateKey);
  const issued = await authority.issue({ csr, nodeId, role: 'manager', lifetimeMs, sealingName });
  const { chainPem: certificatePem } = issued;
  writePrivateFile(join(folder, 'manager.key'), privatePem);
  replaceFile(join(folder, 'manager.crt'), certificatePem, 0o600);
  return { certificatePem, keyPem: privatePem };
}

/** Also false before it begins: the clock was set back. */
function isInFirstHalf(certificate: Certificate, now: number): boolean {
  const fromMs = issuedMs(certificate);
  return now >= certificate.notBeforeMs && now < (fromMs + certificate.notAfterMs) / 2;
}
