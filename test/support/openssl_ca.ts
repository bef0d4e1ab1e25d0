/** CAs as users have them: made by the openssl program, with names of their own. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';

export interface OpensslCa {
  certPem: string;
  keyPem: string;
}

export interface OpensslCaOptions {
  name: string;
  /** Who signs it; itself if not given. */
  by?: OpensslCa;
  /** As `openssl genpkey` wants it: [algorithm, option...]; P-256 if not given. */
  key?: readonly string[];
  days?: number;
  /** Lines of an extension section; those of a CA if not given. */
  extensions?: readonly string[];
}

const caExtensions = [
  'basicConstraints=critical,CA:TRUE',
  'keyUsage=critical,keyCertSign,cRLSign',
  'subjectKeyIdentifier=hash',
];

export const keys = {
  p256: ['EC', 'ec_paramgen_curve:P-256'],
  p384: ['EC', 'ec_paramgen_curve:P-384'],
  p521: ['EC', 'ec_paramgen_curve:P-521'],
  rsa1024: ['RSA', 'rsa_keygen_bits:1024'],
  rsa2048: ['RSA', 'rsa_keygen_bits:2048'],
  ed25519: ['ED25519'],
} as const;

export function opensslCa(t: Pick<ExecutionContext, 'teardown'>, options: OpensslCaOptions): OpensslCa {
  const { name, by, key = keys.p256, days = 3650, extensions = caExtensions } = options;
  const folder = mkdtempSync(join(tmpdir(), 'inro-ca-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const file = (fileName: string, content?: string): string => {
    if (content !== undefined) writeFileSync(join(folder, fileName), content);
    return join(folder, fileName);
  };
  const run = (...args: string[]): void => void execFileSync('openssl', args, { stdio: 'pipe' });
  const [algorithm = '', ...pkeyOptions] = key;
  run(
    'genpkey',
    '-algorithm',
    algorithm,
    ...pkeyOptions.flatMap((o) => ['-pkeyopt', o]),
    '-out',
    file('key'),
  );
  run('req', '-new', '-key', file('key'), '-subj', name, '-out', file('csr'));
  const issuer =
    by === undefined
      ? ['-signkey', file('key')]
      : [
          '-CA',
          file('by.crt', by.certPem.split(/(?<=-----END CERTIFICATE-----\n)/)[0]),
          '-CAkey',
          file('by.key', by.keyPem),
        ];
  const lines = by === undefined ? extensions : [...extensions, 'authorityKeyIdentifier=keyid'];
  const ext = ['-extfile', file('ext', lines.join('\n'))];
  const serial = ['-set_serial', String(1 + Math.floor(Math.random() * 1e12))];
  run(
    'x509',
    '-req',
    '-in',
    file('csr'),
    ...issuer,
    ...serial,
    '-days',
    String(days),
    ...ext,
    '-out',
    file('crt'),
  );
  const certPem = readFileSync(file('crt'), 'utf8');
  return { certPem, keyPem: readFileSync(file('key'), 'utf8') };
}

/** A root, and an intermediate below it whose file goes up to the root. */
export function opensslIntermediate(
  t: Pick<ExecutionContext, 'teardown'>,
  kinds: { root?: readonly string[]; below?: readonly string[] } = {},
): { root: OpensslCa; intermediate: OpensslCa } {
  const root = opensslCa(t, { name: '/O=Example Corp/CN=Example Root', key: kinds.root ?? keys.p256 });
  const signed = opensslCa(t, {
    name: '/O=Example Corp/OU=Secrets/CN=Example inro CA',
    by: root,
    key: kinds.below ?? keys.p256,
    extensions: caExtensions.with(0, 'basicConstraints=critical,CA:TRUE,pathlen:0'),
  });
  return { root, intermediate: { ...signed, certPem: signed.certPem + root.certPem } };
}
