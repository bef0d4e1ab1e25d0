/** The certificate extensions that inro writes, each as RFC 5280 4.2.1 words it. */
import { sha256 } from '../crypto/signing.js';
import { bitString, boolean, contextBytes, octetString, oid, sequence, toBytes, type Der } from './der.js';
import { purposes, type Purpose } from './purpose.js';

/** 4.2.1.9. An authority may sign certificates; everything else says plainly that it may not. */
export function basicConstraints(isAuthority: boolean): Der {
  return extension('2.5.29.19', 'critical', isAuthority ? sequence(boolean(true)) : sequence());
}

const keyUsageBits = { digitalSignature: 0, keyCertSign: 5, cRLSign: 6 } as const;

/** 4.2.1.3. Bit 0 is the highest of the first byte; trailing zero bits are left out (X.690 11.2.2). */
export function keyUsage(...uses: (keyof typeof keyUsageBits)[]): Der {
  const bits = uses.map((use): number => keyUsageBits[use]);
  const byte = bits.reduce((sum, bit) => sum | (0x80 >> bit), 0);
  return extension('2.5.29.15', 'critical', bitString(Uint8Array.of(byte), 7 - Math.max(...bits)));
}

/** 4.2.1.12. */
export function extendedKeyUsage(...uses: Purpose[]): Der {
  return extension('2.5.29.37', 'normal', sequence(...uses.map((use) => oid(purposes[use]))));
}

/** 4.2.1.6. dNSName is [2] IA5String. */
export function subjectAltNames(...dnsNames: string[]): Der {
  const names = dnsNames.map((name) => contextBytes(2, Buffer.from(name, 'latin1')));
  return extension('2.5.29.17', 'normal', sequence(...names));
}

/** 4.2.1.2. @param spki of the certificate's own key. @param identifier as another certificate of it has it, if there is one. */
export function subjectKeyIdentifier(spki: Uint8Array, identifier = keyIdentifier(spki)): Der {
  return extension('2.5.29.14', 'normal', octetString(identifier));
}

/** 4.2.1.1. @param spki of the key that signs. @param identifier as its own certificate has it, if it has one. */
export function authorityKeyIdentifier(spki: Uint8Array, identifier = keyIdentifier(spki)): Der {
  return extension('2.5.29.35', 'normal', sequence(contextBytes(0, identifier)));
}

function extension(id: string, weight: 'critical' | 'normal', value: Der): Der {
  const content = octetString(toBytes(value));
  return weight === 'critical' ? sequence(oid(id), boolean(true), content) : sequence(oid(id), content);
}

// RFC 7093 2 method 4: a hash of the whole SubjectPublicKeyInfo; 160 bits of it, as readers are used to.
function keyIdentifier(spki: Uint8Array): Uint8Array {
  return sha256(spki).subarray(0, 20);
}
