/**
 * The CAs of the cluster: the one that signs; while it takes another one's place, that one, whose certificates are accepted as
 * well; and those that are not believed any more.
 */
import { create } from '@bufbuild/protobuf';
import type { Clock, Random } from '../model/clock.js';
import { InroError } from '../model/error.js';
import { authorityDigest, openAuthority, type Authority, type NodeRequest } from '../pki/authority.js';
import type { Certificate } from '../pki/certificate.js';
import { openExternalAuthority, type AskToSign, type ExternalAuthority } from '../pki/external.js';
import { chainPem, readChain, type Chain } from '../pki/chain.js';
import { isIssuedBy } from '../pki/issuer.js';
import { CaRecordSchema, type CaRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Peer } from '../rpc/peer.js';
import { managerLimits } from './limits.js';

interface Ca {
  chain: Chain;
  root: Certificate;
  digest: Uint8Array;
  record: CaRecord;
}

/** A certificate, with what it needs to be verified and to be recorded. */
export interface Issued {
  certificate: Certificate;
  /** It, and those between it and the root. */
  chainPem: string;
  /** By which records name the CA that signed it. */
  issuedCa: Uint8Array;
}

interface Surroundings {
  clusterId: string;
  clock: Pick<Clock, 'now'>;
  random: Random;
}

export class Authorities {
  readonly #surroundings: Surroundings;
  /** In the order in which they came. */
  #cas: Ca[];
  #present: Authority | ExternalAuthority;
  /** By fingerprint, of certificates that were looked at lately: the CA that signed each. */
  readonly #signers = new Map<string, Ca | undefined>();

  /** @param key of the last one: PEM, or how to ask it if its key is elsewhere. @throws as openAuthority, for that one. */
  constructor(records: readonly CaRecord[], key: string | AskToSign, surroundings: Surroundings) {
    this.#surroundings = surroundings;
    this.#cas = records.map(caOf);
    this.#present = this.#opened(key);
  }

  /** For the first CA of a cluster. */
  static first(certPem: string, sinceMs: number, external = false): CaRecord {
    const pem = chainPem(readChain(certPem));
    return create(CaRecordSchema, { chainPem: pem, sinceMs: BigInt(sinceMs), external });
  }

  get clusterId(): string {
    return this.#present.clusterId;
  }

  get root(): Certificate {
    return this.#present.root;
  }

  get intermediatesPem(): string {
    return this.#present.intermediatesPem;
  }

  /** Its key is elsewhere: nothing but certificates is signed with it. */
  get isExternal(): boolean {
    return this.#last.record.external;
  }

  /** The one that signs, then those above it, the root last. */
  get chain(): Chain {
    return this.#last.chain;
  }

  /** What leads from its root to those before it; '' when nothing does. */
  get crossPem(): string {
    return this.#last.record.crossPem;
  }

  get records(): readonly CaRecord[] {
    return this.#cas.map(({ record }) => record);
  }

  /** The ones before that are still believed. */
  get former(): readonly CaRecord[] {
    return this.records.slice(0, -1).filter(({ retiredMs }) => retiredMs === 0n);
  }

  /** PEM of every root that ever was one, and has not expired: what their CAs signed is judged by `check`. */
  get everyRootPem(): string {
    const now = this.#surroundings.clock.now();
    return rootsPem(this.#cas.filter(({ root }) => now <= root.notAfterMs));
  }

  /** What nodes are told that they may trust; undefined while there was never more than one CA. */
  get trusted(): { rootsPem: string; crossPem: string } | undefined {
    if (this.#cas.length < 2) return undefined;
    const { crossPem } = this.#last.record;
    return { rootsPem: rootsPem(this.#cas.filter(({ record }) => record.retiredMs === 0n)), crossPem };
  }

  /** @throws as Authority.issueNode; unreachable where the CA is external. */
  async issue(request: NodeRequest): Promise<Issued> {
    // Another CA may take its place meanwhile.
    const [present, { digest }] = [this.#present, this.#last];
    const certificate = await present.issueNode(request);
    return { certificate, chainPem: certificate.pem + present.intermediatesPem, issuedCa: digest };
  }

  /** @throws internal for an external one. */
  crossSign(root: Certificate): Certificate {
    if ('crossSign' in this.#present) return this.#present.crossSign(root);
    throw new InroError('internal', 'an external CA does not vouch for another root');
  }

  /** The root that has this digest, if it is believed; else the newest. */
  rootFor(digestMatches: (rootDer: Uint8Array) => boolean): Certificate {
    const believed = this.#cas.filter(({ record }) => record.retiredMs === 0n).map(({ root }) => root);
    return believed.find(({ der }) => digestMatches(der)) ?? this.root;
  }

  /** By which records name the CA that signed this; undefined when none of these did. */
  signerOf(certificate: Certificate): Uint8Array | undefined {
    return this.#signer(certificate)?.digest;
  }

  hasSigned(certificate: Certificate): boolean {
    return this.isPresent(this.signerOf(certificate));
  }

  isPresent(digest: Uint8Array | undefined): boolean {
    return digest !== undefined && same(digest, this.#last.digest);
  }

  /** @param digest of a CA's key. @returns when it ceased to be believed; undefined: it has not, or was never one. */
  retiredMs(digest: Uint8Array): number | undefined {
    const found = this.#cas.find((ca) => same(ca.digest, digest));
    return found === undefined || found.record.retiredMs === 0n ? undefined : Number(found.record.retiredMs);
  }

  isKnown(digest: Uint8Array): boolean {
    return this.#cas.some((ca) => same(ca.digest, digest));
  }

  /** Whether a node's certificate, that TLS has verified, is accepted. @throws unauthenticated, saying what to do. */
  check(certificate: Certificate): void {
    const ca = this.#signer(certificate);
    if (ca?.record.retiredMs === 0n) return;
    const how =
      "join it again with a fresh token, the node keeps its id: stop the agent, then 'inro agent join --again --token - --manager HOST:PORT'";
    if (ca === undefined)
      throw new InroError('unauthenticated', `${certificate.label} was not issued by this cluster's CA`, {
        remedy: how,
      });
    const since = new Date(Number(ca.record.retiredMs)).toISOString();
    throw new InroError(
      'unauthenticated',
      `${certificate.label} is of a CA that is not in use any more since ${since}: the host was away while the CA was rotated`,
      { remedy: how },
    );
  }

  /** As `check`, for who calls. What an operator's certificate must be, stands in his record. */
  checkPeer(peer: Peer): void {
    if (peer.kind === 'node') this.check(peer.certificate);
  }

  /** @throws as openAuthority, and nothing has changed. */
  add(record: CaRecord, keyPem: string): void {
    const before = this.#cas;
    this.#cas = [...before, caOf(record)];
    this.#signers.clear();
    try {
      this.#present = this.#opened(keyPem);
    } catch (error) {
      this.#cas = before;
      throw error;
    }
  }

  /** From now on as the records say. */
  retired(records: readonly CaRecord[]): void {
    this.#cas = records.map(caOf);
    this.#signers.clear();
  }

  get #last(): Ca {
    return this.#cas.at(-1) as Ca;
  }

  #opened(key: string | AskToSign): Authority | ExternalAuthority {
    const { chainPem: pem, crossPem } = this.#last.record;
    return typeof key === 'string'
      ? openAuthority(pem, key, { ...this.#surroundings, crossPem })
      : openExternalAuthority(pem, key, this.#surroundings);
  }

  #signer(certificate: Certificate): Ca | undefined {
    const { fingerprint } = certificate;
    if (this.#signers.has(fingerprint)) return this.#signers.get(fingerprint);
    const ca = this.#cas.findLast(({ chain }) => isIssuedBy(certificate, chain[0], 0));
    if (this.#signers.size >= managerLimits.maxKnownSigners) this.#signers.clear();
    this.#signers.set(fingerprint, ca);
    return ca;
  }
}

function caOf(record: CaRecord): Ca {
  const chain = readChain(record.chainPem);
  return { chain, root: chain.at(-1) as Certificate, digest: authorityDigest(chain[0]), record };
}

/** The newest first, each once. */
function rootsPem(cas: readonly Ca[]): string {
  return [...new Set(cas.map(({ root }) => root.pem).reverse())].join('');
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
