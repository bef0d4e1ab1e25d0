/**
 * An operator's identity: one text file, closed to others, with his key, his certificate, the cluster's root (PEM, in any
 * order), and above them lines such as `manager: HOST:PORT`.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { publicKeyOf, readPrivateKey } from '../crypto/signing.js';
import { InroError } from '../model/error.js';
import { printable } from '../model/name.js';
import { readCertificate, type Certificate } from '../pki/certificate.js';
import { readRoot } from '../pki/root.js';
import { verifyNodeCertificate } from '../pki/verify.js';
import { checkAddress } from '../rpc/address.js';

/** One of ours has about 2 KiB. */
const maxFileBytes = 64 * 1024;
const maxManagers = 16;

export interface OperatorIdentity {
  /** As the file calls him. */
  name: string;
  clusterId: string;
  certificate: Certificate;
  rootPem: string;
  certificatePem: string;
  keyPem: string;
  /** HOST:PORT of each manager that it names. */
  managers: readonly string[];
}

export interface IdentityContent {
  name: string;
  clusterId: string;
  managers: readonly string[];
  /** Undefined when it is elsewhere: it is to be added to the file. */
  keyPem: string | undefined;
  certificatePem: string;
  rootPem: string;
}

export function identityText(content: IdentityContent): string {
  const { name, clusterId, managers, keyPem, certificatePem, rootPem } = content;
  return [
    keyPem === undefined
      ? `# operator ${name} of an inro cluster: add the private key to this file`
      : `# operator ${name} of an inro cluster: who has this file, is him`,
    `operator: ${name}`,
    `cluster: ${clusterId}`,
    ...managers.map((address) => `manager: ${address}`),
    `${keyPem ?? ''}${certificatePem}${rootPem}`,
  ].join('\n');
}

/**
 * @param now ms since 1970.
 * @throws no_identity when it is not there; not_permitted when others could read or have written it; bad_input,
 *   bad_certificate, foreign_cluster for what stands in it.
 */
export function readIdentity(path: string, now: number): OperatorIdentity {
  return parseIdentity(readClosed(path), path, now);
}

/** @param path for messages. */
export function parseIdentity(text: string, path: string, now: number): OperatorIdentity {
  const blocks = [...text.matchAll(/-----BEGIN ([A-Z ]+)-----\n[^-]*-----END \1-----\n?/g)];
  const ofLabel = (wanted: RegExp): string[] =>
    blocks.filter(([, label = '']) => wanted.test(label)).map(([block]) => block);
  const keys = ofLabel(/^(EC )?PRIVATE KEY$/);
  const certificates = ofLabel(/^CERTIFICATE$/).map((pem) => ({ pem, certificate: readCertificate(pem) }));
  const own = certificates.filter(({ certificate }) => !certificate.isAuthority);
  // Those between the certificate and the root, and the root last.
  const authorities = certificates.filter(({ certificate }) => certificate.isAuthority);
  const known = keys.length + certificates.length;
  const facts = factsIn(
    blocks.reduce((rest, [block]) => rest.replace(block, ''), text),
    path,
  );
  const roots = authorities.filter(({ certificate: { x509 } }) => x509.checkIssued(x509));
  const [keyPem, rootPem = ''] = [keys[0], authorities.at(-1)?.pem];
  if (known !== blocks.length || keys.length > 1 || own.length !== 1 || roots.length !== 1)
    throw damaged(
      path,
      'it must have one private key, one certificate and its root, in PEM, and no other block but the CAs between them',
    );
  if (keyPem === undefined) throw damaged(path, 'its private key is missing', `add it: cat KEY >> ${path}`);
  readRoot(rootPem);
  const certificatePem = [...own, ...authorities.slice(0, -1)].map(({ pem }) => pem).join('');
  const certificate = (own[0] as (typeof own)[0]).certificate;
  const name = printable(facts.get('operator')?.[0] ?? certificate.nodeId, 64);
  checkTime(certificate, name, path, now);
  let publicKey;
  try {
    publicKey = publicKeyOf(readPrivateKey(keyPem));
  } catch (cause) {
    throw damaged(path, 'its private key is not an unencrypted P-256 key', undefined, cause);
  }
  verifyNodeCertificate(certificatePem, { rootPem, role: 'operator', publicKey, now });
  const managers = (facts.get('manager') ?? []).map(checkAddress);
  if (managers.length > maxManagers) throw damaged(path, `it names more than ${maxManagers} managers`);
  const { clusterId } = certificate;
  return {
    name,
    clusterId,
    certificate,
    rootPem,
    certificatePem,
    keyPem,
    managers,
  };
}

/** `key: value` lines; of keys that are not known yet no notice is taken. */
function factsIn(text: string, path: string): Map<string, string[]> {
  const facts = new Map<string, string[]>();
  for (const line of text.split('\n').map((one) => one.trim())) {
    if (line === '' || line.startsWith('#')) continue;
    const [, key, value] = /^([a-z][a-z-]*): (.+)$/.exec(line) ?? [];
    if (key === undefined || value === undefined)
      throw damaged(path, 'a line in it is neither PEM nor KEY: VALUE');
    facts.set(key, [...(facts.get(key) ?? []), value]);
  }
  return facts;
}

function checkTime(certificate: Certificate, name: string, path: string, now: number): void {
  const { notAfterMs } = certificate;
  if (now <= notAfterMs) return;
  throw new InroError(
    'bad_certificate',
    `the identity of operator ${name} in ${path} expired at ${new Date(notAfterMs).toISOString()}`,
    {
      remedy: `check the clock of this host; if it is right, ask an admin for another: inro operator rm ${name}, inro operator create ${name}`,
    },
  );
}

function readClosed(path: string): string {
  let descriptor: number;
  try {
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new InroError(
      'no_identity',
      isMissing ? `there is no identity file ${path}` : `${path} cannot be read: ${(error as Error).message}`,
      {
        remedy:
          'name the one that an admin gave you with --identity FILE or INRO_IDENTITY; on the manager he makes one: inro operator create NAME --role ROLE',
        cause: error,
      },
    );
  }
  try {
    const stat = fstatSync(descriptor);
    if (!stat.isFile()) throw damaged(path, 'it is no file');
    const uid = process.geteuid?.();
    if (stat.uid !== uid && stat.uid !== 0) {
      throw new InroError(
        'not_permitted',
        `the identity file ${path} belongs to another user (uid ${stat.uid})`,
        {
          remedy: 'use one of your own',
        },
      );
    }
    if ((stat.mode & 0o077) !== 0) {
      throw new InroError(
        'not_permitted',
        `the identity file ${path} is open to other users: it is not used`,
        {
          remedy: `close it: chmod 600 ${path}; if somebody may have read it, have it revoked: inro operator revoke NAME`,
        },
      );
    }
    if (stat.size > maxFileBytes) throw damaged(path, `it is larger than ${maxFileBytes} bytes`);
    const bytes = Buffer.alloc(maxFileBytes);
    let length = 0;
    for (let some = -1; some !== 0 && length < bytes.length; length += some)
      some = readSync(descriptor, bytes, length, bytes.length - length, null);
    return bytes.toString('utf8', 0, length);
  } finally {
    closeSync(descriptor);
  }
}

function damaged(path: string, why: string, remedy?: string, cause?: unknown): InroError {
  return new InroError('bad_input', `${path} is no operator's identity: ${why}`, {
    remedy: remedy ?? "use the file that 'inro operator create' made, as it was made",
    cause,
  });
}
