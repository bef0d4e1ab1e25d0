/** Why a version was wiped on a node: the words that receipts have for it. */
export const wipeReasons = [
  /** No task of the node uses it any more. */
  'removed',
  /** An operator's order. */
  'revoked',
  /** Another version took its place, and the grace is over. */
  'superseded',
  /** The lease was over. */
  'lease',
  /** The agent was stopped. */
  'stopped',
] as const;

export type WipeReason = (typeof wipeReasons)[number];

export function isWipeReason(text: string): text is WipeReason {
  return (wipeReasons as readonly string[]).includes(text);
}
