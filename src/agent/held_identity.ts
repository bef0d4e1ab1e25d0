/** The identity that this agent uses now, and the way from one certificate to the next: disk first, and back if need be. */
import type { Logger } from 'pino';
import { asInroError, InroError, type ErrorCode } from '../model/error.js';
import type { Certificate } from '../pki/certificate.js';
import { chainPem } from '../pki/chain.js';
import { isVouchedFor, readRoots } from '../pki/root.js';
import {
  dropRenewed,
  findIdentity,
  identityOf,
  saveRenewed,
  saveRoots,
  settleRenewed,
  type FoundIdentity,
  type Identity,
  type KeyPair,
} from './identity.js';

/** With these a manager says that it does not believe the certificate, not that it is busy or away. */
const refusals: readonly ErrorCode[] = [
  'bad_certificate',
  'foreign_cluster',
  'not_permitted',
  'unauthenticated',
];

export class HeldIdentity {
  readonly #folder: string;
  readonly #log: Logger;
  #current: Identity;
  /** While the present one is tried. */
  #former: Identity | undefined;
  /** It is not in its place on disk yet. */
  #isUnsettled: boolean;
  /** The folder is another process's. */
  #hasLetGo = false;
  /** Called when a renewed one has worked. */
  onWorked: (() => void) | undefined;
  /** Called with why, when the agent went back to the one before. */
  onBack: ((why: InroError) => void) | undefined;

  constructor(folder: string, { identity, former, refused, isRenewed }: FoundIdentity, log: Logger) {
    this.#folder = folder;
    this.#log = log;
    this.#current = identity;
    this.#former = former;
    this.#isUnsettled = isRenewed;
    if (refused !== undefined)
      log.warn({ err: refused }, 'a renewed certificate cannot be used; going on with the one before');
  }

  /** @throws as loadIdentity. */
  static open(folder: string, now: number, log: Logger): HeldIdentity {
    return new HeldIdentity(folder, findIdentity(folder, now), log);
  }

  get current(): Identity {
    return this.#current;
  }

  /** No manager has welcomed the node under the present one yet. */
  get isOnTrial(): boolean {
    return this.#former !== undefined;
  }

  /** On disk when it returns, beside the present one; used from then on. @throws state_unusable, and nothing has changed. */
  take(pair: KeyPair, now: number): void {
    if (this.#hasLetGo) return;
    const next = identityOf(pair, this.#current, now);
    // One that has worked must not be overwritten by one that has not.
    if (this.#isUnsettled && this.#former === undefined) this.#settle();
    saveRenewed(this.#folder, pair);
    this.#former ??= this.#current;
    this.#current = next;
    this.#isUnsettled = true;
  }

  /**
   * Trusts these roots from now on, on disk when it returns. One that is new is taken if a root that is trusted vouches for it:
   * who joined while the CA was rotated has no use for the root before.
   * @throws unauthenticated when nothing is left; bad_certificate, when the present certificate could not be verified any more;
   *   state_unusable; and nothing has changed.
   */
  trust({ rootsPem, crossPem }: { rootsPem: string; crossPem: string }, now: number): void {
    const { rootPem: known } = this.#current;
    const before = readRoots(known);
    const isTrusted = (root: Certificate): boolean =>
      before.some(({ fingerprint }) => fingerprint === root.fingerprint) ||
      isVouchedFor(root, crossPem, known, now);
    const roots = readRoots(rootsPem).filter(isTrusted);
    if (roots.length === 0) {
      throw new InroError(
        'unauthenticated',
        'the manager names roots that the trusted one does not vouch for',
        {
          remedy:
            'somebody may stand between this node and the manager; compare the root with its operators: inro ca inspect',
        },
      );
    }
    const next = chainPem(roots);
    if (this.#hasLetGo || next === chainPem(before)) return;
    const [current, former] = [this.#current, this.#former];
    identityOf(current, { ...current, rootPem: next }, Math.min(now, current.certificate.notAfterMs));
    saveRoots(this.#folder, next);
    current.rootPem = next;
    if (former !== undefined) former.rootPem = next;
    this.#log.info({ roots: roots.map(({ fingerprint }) => fingerprint) }, 'the trusted roots have changed');
  }

  /** A manager has welcomed the node under it. */
  worked(identity: Identity): void {
    if (identity !== this.#current) return;
    const wasOnTrial = this.#former !== undefined;
    this.#former = undefined;
    this.settle();
    if (!wasOnTrial) return;
    const { serial } = identity.certificate;
    this.#log.info({ serial }, 'the renewed certificate works; the one before is given up');
    this.onWorked?.();
  }

  /** Puts one that has worked into its place on disk. Until that can be done, the disk has it all the same. */
  settle(): void {
    if (!this.#isUnsettled || this.#former !== undefined || this.#hasLetGo) return;
    try {
      this.#settle();
    } catch (error) {
      this.#log.warn({ err: error }, 'the renewed certificate is not in its place yet; trying again');
    }
  }

  /** Back to the one before, if that is what a manager's refusal asks for. @returns true when there is something to try again with. */
  refused(identity: Identity, why: InroError, now: number): boolean {
    const former = this.#former;
    if (this.#hasLetGo || former === undefined || identity !== this.#current || !refusals.includes(why.code))
      return false;
    if (now > former.certificate.notAfterMs) return false;
    this.#log.error(
      { err: why, serial: identity.certificate.serial, backTo: former.certificate.serial },
      'a manager refuses the renewed certificate; going back to the one before',
    );
    this.#current = former;
    this.#former = undefined;
    this.#isUnsettled = false;
    try {
      dropRenewed(this.#folder);
    } catch (thrown) {
      const error = asInroError(thrown);
      this.#log.warn({ err: error, remedy: error.remedy }, 'the refused certificate could not be removed');
    }
    this.onBack?.(why);
    return true;
  }

  /** From here on the folder is a successor's. */
  letGo(): void {
    this.#hasLetGo = true;
  }

  #settle(): void {
    settleRenewed(this.#folder, this.#current);
    this.#isUnsettled = false;
  }
}
