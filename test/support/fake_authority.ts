/**
 * A little working CA for tests that need certificates: real keys, real signatures, real files' content. Only its
 * clock is made up, so a certificate can be expired or not begun yet without anybody waiting.
 */
import { randomBytes } from 'node:crypto';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { newId } from '../../src/model/id.js';
import { createAuthority, openAuthority, type Authority } from '../../src/pki/authority.js';
import { createCsr } from '../../src/pki/csr.js';
import type { Role } from '../../src/pki/role.js';

const dayMs = 24 * 60 * 60 * 1000;

/** What a node keeps on its disk. */
export interface FakeIdentity {
  nodeId: string;
  certPem: string;
  /** PKCS#8. */
  keyPem: string;
}

export interface FakeNodeOptions {
  nodeId?: string;
  /** When it is issued, in ms from the cluster's now: -100 days makes an expired one, 1 day one not valid yet. */
  issuedInMs?: number;
  lifetimeMs?: number;
  sealingName?: string;
}

export interface FakeCluster {
  clusterId: string;
  rootPem: string;
  rootKeyPem: string;
  rootDer: Uint8Array;
  authority: Authority;
  /** The cluster's now, in ms since 1970. */
  now: number;
  worker(options?: FakeNodeOptions): FakeIdentity;
  manager(options?: FakeNodeOptions): FakeIdentity;
  /** Expired 10 days ago. */
  expiredWorker(options?: FakeNodeOptions): FakeIdentity;
  /** Valid in 23 hours (issued tomorrow, backdated by one hour). */
  futureWorker(options?: FakeNodeOptions): FakeIdentity;
}

/**
 * A cluster whose root is a year old. A foreign one is simply another `fakeCluster()`.
 * @param options.now ms since 1970; the real time if not given, as a TLS handshake in a test needs it.
 */
export function fakeCluster(options: { now?: number; clusterId?: string } = {}): FakeCluster {
  const { now = Date.now(), clusterId = newId(randomBytes) } = options;
  const at = (ms: number) => ({ clusterId, clock: { now: () => ms }, random: randomBytes });
  const { certPem, keyPem } = createAuthority(at(now - 365 * dayMs));
  const authority = openAuthority(certPem, keyPem, at(now));

  function node(role: Role, given: FakeNodeOptions = {}): FakeIdentity {
    const { nodeId = newId(randomBytes), issuedInMs = 0, ...rest } = given;
    const key = generateNodeKey();
    const issuer = openAuthority(certPem, keyPem, at(now + issuedInMs));
    const issued = issuer.issueNode({ csr: createCsr(key.privateKey), nodeId, role, ...rest });
    return { nodeId, certPem: issued.pem, keyPem: key.privatePem };
  }

  return {
    clusterId,
    rootPem: certPem,
    rootKeyPem: keyPem,
    rootDer: authority.root.der,
    authority,
    now,
    worker: (given) => node('worker', given),
    manager: (given) => node('manager', given),
    expiredWorker: (given) => node('worker', { ...given, issuedInMs: -100 * dayMs }),
    futureWorker: (given) => node('worker', { ...given, issuedInMs: dayMs }),
  };
}
