/** Base64 (RFC 4648, section 4), decoded where it lies. */
const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const digits = new Int8Array(256).fill(-1);
for (let at = 0; at < alphabet.length; at++) digits[alphabet.charCodeAt(at)] = at;
const padding = '='.charCodeAt(0);

/** Spaces and line ends are passed over. @returns how many bytes it is now; undefined: it was no base64. */
export function decodeInPlace(bytes: Uint8Array): number | undefined {
  let [length, count, paddings, bits] = [0, 0, 0, 0];
  for (const byte of bytes) {
    if (byte === 0x20 || (byte >= 0x09 && byte <= 0x0d)) continue;
    if (byte === padding) {
      paddings++;
      continue;
    }
    const digit = digits[byte] as number;
    if (digit < 0 || paddings > 0) return undefined;
    bits = ((bits << 6) | digit) & 0xffffff;
    count++;
    // What is written lies behind what is read.
    if (count % 4 !== 1) bytes[length++] = (bits >> (6 - 2 * ((count - 1) % 4))) & 0xff;
  }
  if ((count + paddings) % 4 !== 0 || paddings > 2 || count % 4 === 1) return undefined;
  return length;
}
