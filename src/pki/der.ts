/**
 * DER with node-forge's ASN.1 kit. forge speaks in binary strings and throws what it likes; here it is bytes,
 * and `parseDer` gives undefined for whatever is not DER. Only forge's asn1.js is loaded: 4 ms instead of the
 * 27 ms of the whole package (measured on Node 20).
 */
import { createRequire } from 'node:module';
import type { asn1 as forgeAsn1 } from 'node-forge';

export type Der = forgeAsn1.Asn1;

interface Kit {
  create(tagClass: number, type: number, constructed: boolean, value: string | Der[]): Der;
  // @types/node-forge knows the boolean form alone, which decodes bit strings by guess.
  fromDer(
    bytes: string,
    options: { strict: true; parseAllBytes: true; decodeBitStrings: false; maxDepth: number },
  ): Der;
  toDer(value: Der): { getBytes(): string };
  oidToDer(oid: string): { getBytes(): string };
  derToOid(bytes: string): string;
}
const kit = createRequire(import.meta.url)('node-forge/lib/asn1.js') as Kit;

const universal = 0x00;
const contextSpecific = 0x80;
const maxDepth = 32;
/** Universal tags (X.680 8.4). */
export const tag = {
  boolean: 1,
  integer: 2,
  bitString: 3,
  octetString: 4,
  oid: 6,
  utf8String: 12,
  sequence: 16,
  set: 17,
};
const tagNull = 5;
const tagUtcTime = 23;
const tagGeneralizedTime = 24;

export function sequence(...parts: Der[]): Der {
  return kit.create(universal, tag.sequence, true, parts);
}

export function set(...parts: Der[]): Der {
  return kit.create(universal, tag.set, true, parts);
}

export function boolean(value: boolean): Der {
  return kit.create(universal, tag.boolean, false, value ? '\xff' : '\x00');
}

/** @param bytes two's complement, most significant first, as short as can be (X.690 8.3.2). */
export function integer(bytes: Uint8Array): Der {
  return kit.create(universal, tag.integer, false, binary(bytes));
}

export function oid(dotted: string): Der {
  return kit.create(universal, tag.oid, false, kit.oidToDer(dotted).getBytes());
}

/** NULL. */
export function nothing(): Der {
  return kit.create(universal, tagNull, false, '');
}

export function utf8String(text: string): Der {
  return kit.create(universal, tag.utf8String, false, binary(Buffer.from(text, 'utf8')));
}

export function octetString(bytes: Uint8Array): Der {
  return kit.create(universal, tag.octetString, false, binary(bytes));
}

/** @param unusedBits how many of the last byte's low bits do not count. */
export function bitString(bytes: Uint8Array, unusedBits = 0): Der {
  return kit.create(universal, tag.bitString, false, String.fromCharCode(unusedBits) + binary(bytes));
}

/** `[n]` around other values: EXPLICIT, or IMPLICIT SET and SEQUENCE. */
export function contextOf(n: number, ...parts: Der[]): Der {
  return kit.create(contextSpecific, n, true, parts);
}

/** `[n] IMPLICIT` of a string type. */
export function contextBytes(n: number, bytes: Uint8Array): Der {
  return kit.create(contextSpecific, n, false, binary(bytes));
}

/** Whole seconds; UTCTime through 2049 and GeneralizedTime from 2050 (RFC 5280 4.1.2.5). @param ms since 1970. */
export function time(ms: number): Der {
  const text = new Date(ms).toISOString().replaceAll(/[-:T]|\.\d{3}/g, '');
  const isUtcTime = ms >= Date.UTC(1950, 0) && ms < Date.UTC(2050, 0);
  return kit.create(
    universal,
    isUtcTime ? tagUtcTime : tagGeneralizedTime,
    false,
    isUtcTime ? text.slice(2) : text,
  );
}

/** A value that is DER already, such as a SubjectPublicKeyInfo. */
export function fromBytes(der: Uint8Array): Der {
  const parsed = parseDer(der);
  if (parsed === undefined) throw new TypeError('these bytes are not DER');
  return parsed;
}

export function toBytes(value: Der): Uint8Array {
  return Buffer.from(kit.toDer(value).getBytes(), 'latin1');
}

/**
 * One DER value and nothing after it. The bytes must be what `toBytes` would write: that refuses BER (long
 * lengths, indefinite lengths, padded integers), and so makes it safe to check a signature over a part
 * that was written again.
 */
export function parseDer(bytes: Uint8Array): Der | undefined {
  try {
    const parsed = kit.fromDer(binary(bytes), {
      strict: true,
      parseAllBytes: true,
      decodeBitStrings: false,
      maxDepth,
    });
    return Buffer.from(bytes).equals(toBytes(parsed)) ? parsed : undefined;
  } catch {
    return undefined;
  }
}

/** The parts of a SEQUENCE, or undefined when it is something else. */
export function partsOf(value: Der | undefined): Der[] | undefined {
  return is(value, tag.sequence) && Array.isArray(value.value) ? value.value : undefined;
}

/** The parts of `[n]`, as `contextOf` makes it, or undefined when it is something else. */
export function contextPartsOf(value: Der | undefined, n: number): Der[] | undefined {
  const isIt =
    value !== undefined && (value.tagClass as number) === contextSpecific && (value.type as number) === n;
  return isIt && Array.isArray(value.value) ? value.value : undefined;
}

/** The content of a primitive value of this tag, or undefined when it is something else. */
export function contentOf(value: Der | undefined, wanted: number): Uint8Array | undefined {
  return is(value, wanted) && typeof value.value === 'string'
    ? Buffer.from(value.value, 'latin1')
    : undefined;
}

function is(value: Der | undefined, wanted: number): value is Der {
  return value !== undefined && (value.tagClass as number) === universal && (value.type as number) === wanted;
}

function binary(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}
