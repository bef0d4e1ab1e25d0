/** PEM (RFC 7468), strictly: one block, nothing around it but white space, base64 in its one canonical form. */
export type PemLabel = 'CERTIFICATE' | 'CERTIFICATE REQUEST';

export function toPem(label: PemLabel, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

/**
 * @param text bounded by the caller.
 * @returns the DER bytes, or undefined when the text is not exactly one block of this label.
 */
export function fromPem(label: PemLabel, text: string): Uint8Array | undefined {
  const trimmed = text.trim();
  const begin = `-----BEGIN ${label}-----`;
  const end = `-----END ${label}-----`;
  if (trimmed.length < begin.length + end.length || !trimmed.startsWith(begin) || !trimmed.endsWith(end))
    return undefined;
  const base64 = trimmed.slice(begin.length, -end.length).replaceAll(/[\r\n]/g, '');
  const der = Buffer.from(base64, 'base64');
  // Buffer.from skips what it does not know; a second block or a stray character shows here.
  return der.length > 0 && der.toString('base64') === base64 ? der : undefined;
}
