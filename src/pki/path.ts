/** Ways from a certificate up to a root that is trusted, by names, keys and signatures. Times are the caller's. */
import type { Certificate } from './certificate.js';
import type { Chain } from './chain.js';
import { isIssuedBy } from './issuer.js';

/**
 * While a CA is rotated, a certificate comes with what leads to the root before, too: who trusts the new one needs less of it.
 * @param chain the certificate, then those that were sent with it, each signed by the next.
 * @param below how many CAs stand below the first certificate of the chain, itself included if it is one.
 * @returns the shortest first.
 */
export function pathsTo(roots: readonly Certificate[], chain: readonly Certificate[], below = 0): Chain[] {
  const paths: Chain[] = [];
  for (let length = 1; length <= chain.length; length++) {
    const part = chain.slice(0, length) as unknown as Chain;
    const [last, before] = [part.at(-1) as Certificate, part.at(-2)];
    if (before !== undefined && !isIssuedBy(before, last, below + length - 2)) break;
    for (const root of roots) if (isIssuedBy(last, root, below + length - 1)) paths.push([...part, root]);
  }
  return paths;
}
