/**
 * Reading a certificate. Whoever hands one in is not trusted yet, so each getter refuses what inro would not
 * have written; whether the certificate is to be believed, `verify.ts` decides.
 */
import { isP256, X509Certificate, type KeyObject } from '../crypto/signing.js';
import { InroError } from '../model/error.js';
import { isId } from '../model/id.js';
import { limits } from './limits.js';
import { fromPem, toPem } from './pem.js';
import { isRole, type Role } from './role.js';
import { isSealingName } from './sealing_name.js';

/** The root's common name. */
export const rootCommonName = 'inro-ca';

export class Certificate {
  /** node:crypto's view of it, for TLS and signatures. */
  readonly x509: X509Certificate;

  constructor(x509: X509Certificate) {
    this.x509 = x509;
  }

  get der(): Uint8Array {
    return this.x509.raw;
  }

  get pem(): string {
    return toPem('CERTIFICATE', this.der);
  }

  /** The common name, whatever it is. @throws bad_certificate when there is not exactly one. */
  get commonName(): string {
    return this.#subjectPart('CN');
  }

  /** @throws bad_certificate unless CN is an id. */
  get nodeId(): string {
    return idOf('node id (CN)', this.#subjectPart('CN'));
  }

  /** @throws bad_certificate unless OU is a role. */
  get role(): Role {
    const role = this.#subjectPart('OU');
    if (!isRole(role)) throw odd('its role (OU) is not one that inro knows');
    return role;
  }

  /** @throws bad_certificate unless O is an id. */
  get clusterId(): string {
    return idOf('cluster id (O)', this.#subjectPart('O'));
  }

  /** Whose certificate it says that it is, for messages: only ids, so it is safe to print before it is verified. */
  get label(): string {
    const parts = nameParts(this.x509.subject);
    const id = parts.get('CN')?.[0];
    const who = parts.get('OU')?.[0] === 'operator' ? 'operator' : 'node';
    return id !== undefined && isId(id) ? `the certificate of ${who} ${id}` : 'the certificate';
  }

  /** The cluster that the issuer claims to be; undefined when it makes no claim that inro understands. */
  get issuerClusterId(): string | undefined {
    const parts = nameParts(this.x509.issuer);
    const [clusterId] = parts.get('O') ?? [];
    return parts.get('CN')?.[0] === rootCommonName && clusterId !== undefined && isId(clusterId)
      ? clusterId
      : undefined;
  }

  /** Lower-case hex. */
  get serial(): string {
    return this.x509.serialNumber.toLowerCase();
  }

  /** SHA-256 of its DER, lower-case hex: what `openssl x509 -fingerprint -sha256` shows. */
  get fingerprint(): string {
    return this.x509.fingerprint256.replaceAll(':', '').toLowerCase();
  }

  /** ms since 1970. */
  get notBeforeMs(): number {
    return timeOf(this.x509.validFrom);
  }

  /** ms since 1970. The last moment at which it is valid (RFC 5280 4.1.2.5: inclusive). */
  get notAfterMs(): number {
    return timeOf(this.x509.validTo);
  }

  /** @throws bad_certificate unless it is a P-256 key. */
  get publicKey(): KeyObject {
    let key: KeyObject;
    try {
      key = this.x509.publicKey;
    } catch (cause) {
      throw odd('its public key cannot be read', cause);
    }
    if (!isP256(key)) throw odd('its public key is not P-256');
    return key;
  }

  /** Names that TLS peers may ask for, in order: `DNS:a, DNS:b`. */
  get altNames(): string {
    return this.x509.subjectAltName ?? '';
  }

  /** The name of the sealing key that it vouches for, if it does. */
  get sealingName(): string | undefined {
    return this.altNames
      .split(', ')
      .map((name) => name.slice('DNS:'.length))
      .find(isSealingName);
  }

  /** Object identifiers of its extended key usage. */
  get purposes(): readonly string[] {
    // node:crypto calls it keyUsage; undefined when the extension is missing, whatever @types/node says.
    const purposes: string[] | undefined = this.x509.keyUsage;
    return purposes ?? [];
  }

  get isAuthority(): boolean {
    return this.x509.ca;
  }

  #subjectPart(type: 'CN' | 'OU' | 'O'): string {
    const values = nameParts(this.x509.subject).get(type) ?? [];
    const [value] = values;
    if (value === undefined) throw odd(`its subject has no ${type}`);
    if (values.length > 1) throw odd(`its subject has ${values.length} ${type} parts instead of one`);
    return value;
  }
}

/**
 * @param input PEM as a string, DER as bytes: one certificate and nothing else.
 * @throws bad_certificate when it is anything else, or longer than limits.maxCertificateBytes.
 */
export function readCertificate(input: string | Uint8Array): Certificate {
  if (input.length > limits.maxCertificateBytes) {
    throw new InroError(
      'bad_certificate',
      `a certificate of ${input.length} bytes is longer than ${limits.maxCertificateBytes}`,
    );
  }
  const der = typeof input === 'string' ? fromPem('CERTIFICATE', input) : input;
  if (der === undefined || der.length === 0) {
    throw new InroError('bad_certificate', 'the text is not one PEM certificate', {
      remedy:
        'give one block from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----, with nothing else',
    });
  }
  let x509: X509Certificate;
  try {
    x509 = new X509Certificate(der);
  } catch (cause) {
    throw new InroError('bad_certificate', 'the bytes are not a certificate, or it is damaged', { cause });
  }
  // OpenSSL stops at the end of the first certificate, and looks for PEM inside DER.
  if (!x509.raw.equals(der))
    throw new InroError('bad_certificate', 'the certificate has other bytes around it');
  return new Certificate(x509);
}

/** node:crypto writes one `TYPE=value` a line and escapes control characters, `+` and `\` in values. */
function nameParts(name: string | undefined): Map<string, string[]> {
  const parts = new Map<string, string[]>();
  for (const line of (name ?? '').split('\n')) {
    const at = line.indexOf('=');
    if (at < 0) continue;
    const type = line.slice(0, at);
    parts.set(type, [...(parts.get(type) ?? []), line.slice(at + 1)]);
  }
  return parts;
}

function idOf(what: string, value: string): string {
  if (!isId(value)) throw odd(`its ${what} is not an id`);
  return value;
}

function timeOf(text: string): number {
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) throw odd('its validity cannot be read');
  return ms;
}

function odd(what: string, cause?: unknown): InroError {
  return new InroError('bad_certificate', `the certificate is not one of inro's: ${what}`, {
    remedy: 'use the certificate that the manager issued to this node',
    cause,
  });
}
