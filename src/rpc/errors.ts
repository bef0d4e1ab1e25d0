/** InroError <-> gRPC status. Code and remedy travel in a trailer, so that the operator's terminal shows both. */
import { Metadata, status, type ServiceError, type StatusObject } from '@grpc/grpc-js';
import { asInroError, errorCodes, InroError, type ErrorCode } from '../model/error.js';

const trailer = 'inro-error-bin';

const statusOf: Partial<Record<ErrorCode, status>> = {
  already_exists: status.ALREADY_EXISTS,
  bad_certificate: status.UNAUTHENTICATED,
  bad_input: status.INVALID_ARGUMENT,
  bad_token: status.PERMISSION_DENIED,
  conflict: status.ABORTED,
  envelope: status.INVALID_ARGUMENT,
  foreign_cluster: status.UNAUTHENTICATED,
  in_use: status.FAILED_PRECONDITION,
  not_found: status.NOT_FOUND,
  not_leader: status.UNAVAILABLE,
  not_permitted: status.PERMISSION_DENIED,
  not_supported: status.UNIMPLEMENTED,
  pending: status.UNAVAILABLE,
  protocol: status.INVALID_ARGUMENT,
  rate_limited: status.RESOURCE_EXHAUSTED,
  store_full: status.RESOURCE_EXHAUSTED,
  too_large: status.RESOURCE_EXHAUSTED,
  unauthenticated: status.UNAUTHENTICATED,
  unreachable: status.UNAVAILABLE,
};

export function toStatus(thrown: unknown): Partial<StatusObject> {
  const error = asInroError(thrown);
  const { code, remedy, leader } = error;
  const metadata = new Metadata();
  metadata.set(trailer, Buffer.from(JSON.stringify({ code, message: error.message, remedy, leader })));
  return { code: statusOf[code] ?? status.INTERNAL, details: error.message, metadata };
}

/** @param to who was called, as an operator knows it: it stands in the message when nobody answered. */
export function fromServiceError(error: ServiceError, to: string): InroError {
  const carried = error.metadata?.get(trailer)[0];
  if (Buffer.isBuffer(carried)) {
    const parsed = parseCarried(carried);
    if (parsed !== undefined) return parsed;
  }
  switch (error.code) {
    case status.UNAVAILABLE:
    case status.DEADLINE_EXCEEDED:
      if (lockedName.test(error.details))
        return new InroError('locked', `${to} is locked: it waits for its unlock key`, {
          remedy: 'on its host: inro manager unlock',
        });
      return new InroError('unreachable', `${to} does not answer: ${plainDetails(error)}`, {
        ...(wasAsked(error) ? { remedy: outcomeUnknown } : {}),
        cause: error,
      });
    case status.RESOURCE_EXHAUSTED:
      return new InroError('too_large', `${to} refused a message: ${error.details}`, { cause: error });
    case status.UNIMPLEMENTED:
      return new InroError('not_supported', `${to} does not offer this call`, {
        remedy: 'check that this is the right address or socket; if it is, its version is older: upgrade it',
        cause: error,
      });
    case status.CANCELLED:
      return new InroError('unreachable', `${to} ended the call before it was done`, {
        remedy: outcomeUnknown,
        cause: error,
      });
    default:
      return new InroError('protocol', `${to}: ${error.details}`, { cause: error });
  }
}

/** What is at the other end proved a certificate of this name alone (pki/role.ts): OpenSSL's words for it. */
const lockedName = /altnames: .*DNS:inro-locked\b/;

/** For a call that may have been done, or begun. */
export const outcomeUnknown =
  'if that was to change something, whether it did is not known: look before you try again';

/** False where no connection came about. */
function wasAsked({ code, details }: ServiceError): boolean {
  if (code === status.DEADLINE_EXCEEDED) return true;
  return !/^No connection established|^Name resolution failed|ECONNREFUSED|ENOENT|EACCES/.test(details);
}

/** Without what grpc-js puts around the cause. */
function plainDetails({ details }: ServiceError): string {
  return details
    .replace(/^Deadline exceeded.*/s, 'it takes too long')
    .replace(/^No connection established\. Last error: (Error: )?/, '')
    .replace(/\.? Resolution note: *$/, '')
    .trim();
}

function parseCarried(bytes: Buffer): InroError | undefined {
  try {
    const { code, message, remedy, leader } = JSON.parse(bytes.toString('utf8')) as Record<string, unknown>;
    if (typeof code !== 'string' || !(code in errorCodes) || typeof message !== 'string') return undefined;
    return new InroError(code as ErrorCode, message, {
      ...(typeof remedy === 'string' ? { remedy } : {}),
      ...(typeof leader === 'string' ? { leader } : {}),
    });
  } catch {
    return undefined;
  }
}
