/**
 * Ids as Swarm makes them: 25 characters of base 36, about 129 random bits, so that they never meet by
 * chance and can be chosen by whoever needs one first (the operator's terminal names a secret's id, because
 * the content key is bound to it before the manager has seen it).
 */
const idPattern = /^[0-9a-z]{25}$/;
export const idChars = 25;

/** @param random gives n random bytes. */
export function newId(random: (n: number) => Uint8Array): string {
  let value = 0n;
  for (const byte of random(17)) value = (value << 8n) | BigInt(byte);
  return value.toString(36).padStart(27, '0').slice(-idChars);
}

export function isId(text: string): boolean {
  return idPattern.test(text);
}
