/** Certificates in one PEM text, each signed by the next: as TLS sends them. */
import { InroError } from '../model/error.js';
import { readCertificate, type Certificate } from './certificate.js';
import { limits } from './limits.js';

export type Chain = readonly [Certificate, ...Certificate[]];

/**
 * Reads them and checks nothing of what they say; that is for `verifyNodeCertificate` or `readBrought`.
 * @throws bad_certificate when the text is anything else, or has more than limits.maxChainCertificates + 1.
 */
export function readChain(pem: string): Chain {
  const most = limits.maxChainCertificates + 1;
  if (pem.length > most * limits.maxCertificateBytes)
    throw tooMany(`${pem.length} characters of certificates`);
  const blocks = pem.split(/(?<=-----END CERTIFICATE-----)/).filter((block) => block.trim() !== '');
  if (blocks.length > most) throw tooMany(`${blocks.length} certificates`);
  const [first = '', ...rest] = blocks;
  return [readCertificate(first), ...rest.map((block) => readCertificate(block))];
}

/** The one that the others vouch for. @throws bad_certificate, as readChain. */
export function leafOf(pem: string): Certificate {
  return readChain(pem)[0];
}

export function chainPem(chain: readonly Certificate[]): string {
  return chain.map(({ pem }) => pem).join('');
}

function tooMany(what: string): InroError {
  return new InroError(
    'bad_certificate',
    `${what} are more than a chain of ${limits.maxChainCertificates + 1} has`,
  );
}
