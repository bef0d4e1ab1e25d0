/** Every bound and duration of this room. */
const hourMs = 60 * 60 * 1000;
const dayMs = 24 * hourMs;

export const limits = {
  /** Of a request, as DER bytes or as PEM characters. One of ours has about 200 bytes. */
  maxCsrBytes: 16 * 1024,
  /** Of a certificate, as DER bytes or as PEM characters. One of ours has about 500 bytes. */
  maxCertificateBytes: 16 * 1024,
  /** 20 years, as Swarm's root (swarmkit ca/certificates.go RootCAExpiration). */
  rootLifetimeMs: 20 * 365 * dayMs,
  nodeLifetimeMs: 90 * dayMs,
  /** Certificates count whole seconds. */
  minNodeLifetimeMs: 1000,
  /** Certificates begin this long before they are issued, so that a host whose clock is behind can use them. */
  backdateMs: hourMs,
  /** RFC 5280 4.1.2.2 allows 20. */
  serialBytes: 16,
  joinSecretBytes: 16,
} as const;
