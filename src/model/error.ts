/**
 * The one error that inro's rooms throw on purpose. It says what failed (`message`, lower case, names the
 * input), why (`cause`), what to type next (`remedy`), and what a loop should do about it (`kind`).
 * Every code stands in docs/errors.md; a test fails when that page and this list disagree.
 */
export const errorCodes = {
  already_exists: 'fatal',
  already_running: 'fatal',
  arena_full: 'temporary',
  bad_certificate: 'fatal',
  bad_config: 'fatal',
  bad_input: 'fatal',
  bad_token: 'fatal',
  conflict: 'temporary',
  envelope: 'fatal',
  foreign_cluster: 'fatal',
  in_use: 'fatal',
  internal: 'fatal',
  locked: 'temporary',
  mount_failed: 'fatal',
  no_fuse: 'fatal',
  no_identity: 'fatal',
  not_found: 'fatal',
  not_leader: 'temporary',
  not_permitted: 'fatal',
  not_supported: 'fatal',
  pending: 'temporary',
  port_taken: 'fatal',
  protocol: 'temporary',
  rate_limited: 'temporary',
  revoked: 'fatal',
  socket_taken: 'fatal',
  state_unusable: 'fatal',
  store_corrupt: 'fatal',
  store_full: 'temporary',
  too_large: 'fatal',
  unauthenticated: 'fatal',
  unreachable: 'temporary',
} as const satisfies Record<string, 'temporary' | 'fatal' | 'harmless'>;

export type ErrorCode = keyof typeof errorCodes;

/** temporary: retry with jittered backoff. fatal: stop, say why and the remedy. harmless: note it. */
export type ErrorKind = 'temporary' | 'fatal' | 'harmless';

export class InroError extends Error {
  override readonly name = 'InroError';
  readonly code: ErrorCode;
  readonly kind: ErrorKind;
  /** What the reader should type or check next; a sentence without a full stop. */
  readonly remedy: string | undefined;
  /** HOST:PORT, of `not_leader`: where to ask instead, if that is known. */
  readonly leader: string | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    options: { remedy?: string; leader?: string; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.kind = errorCodes[code];
    this.remedy = options.remedy;
    this.leader = options.leader;
  }
}

/** Whatever was thrown, as an InroError; what inro did not foresee becomes `internal`. */
export function asInroError(thrown: unknown): InroError {
  if (thrown instanceof InroError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new InroError('internal', message, { cause: thrown });
}
