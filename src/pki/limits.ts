/** Every bound and duration of this room. */
const hourMs = 60 * 60 * 1000;
const dayMs = 24 * hourMs;

export const limits = {
  /** Of a request, as DER bytes or as PEM characters. One of ours has about 200 bytes. */
  maxCsrBytes: 16 * 1024,
  /** Of a certificate, as DER bytes or as PEM characters. One of ours has about 500 bytes. */
  maxCertificateBytes: 16 * 1024,
  /** From a certificate up to the one below the root. */
  maxChainCertificates: 5,
  /** That are trusted at one time: two while a CA is rotated. */
  maxRoots: 4,
  /** What must be left of the life of a CA that is brought along, as Swarm asks it of a new root. */
  minBroughtLifetimeMs: 365 * dayMs,
  /** 20 years, as Swarm's root (swarmkit ca/certificates.go RootCAExpiration). */
  rootLifetimeMs: 20 * 365 * dayMs,
  nodeLifetimeMs: 90 * dayMs,
  /** What an operator may choose. Swarm has the same least (ca/config.go MinNodeCertExpiration). */
  minChosenLifetimeMs: hourMs,
  maxChosenLifetimeMs: 3650 * dayMs,
  /** What must be left of a certificate that an external CA has signed: it is renewed in its second half. */
  minExternalLifetimeMs: hourMs / 2,
  /** Certificates are renewed at a random point between these parts of their life. */
  renewFrom: 0.5,
  renewTo: 0.8,
  /** After one renewal no other for so long, whatever the wall clock says. */
  renewalGapMs: 10 * 60 * 1000,
  /** Certificates count whole seconds. */
  minNodeLifetimeMs: 1000,
  /** Certificates begin this long before they are issued, so that a host whose clock is behind can use them. */
  backdateMs: hourMs,
  /** RFC 5280 4.1.2.2 allows 20. */
  serialBytes: 16,
  joinSecretBytes: 16,
} as const;
