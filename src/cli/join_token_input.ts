/** A join token from where no process list shows it: standard input, a file, a credential of the unit. */
import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import { InroError } from '../model/error.js';
import { joinTokenPrefix, parseJoinToken, type JoinToken } from '../pki/join_token.js';
import { credentialPath } from './credential_path.js';
import { warn } from './print.js';

/** A token stands on one line; what is longer than a page is none. */
const pageBytes = 4096;

/**
 * @param source `-`, a path, `@NAME` for a credential (systemd.exec(5)), or the token itself.
 * @throws bad_token, bad_input when it cannot be read.
 */
export function joinTokenFrom(source: string, env: NodeJS.ProcessEnv = process.env): JoinToken {
  if (source === '-') return parseJoinToken(read(0, 'standard input'));
  if (source.startsWith('@'))
    return parseJoinToken(readFile(credentialPath(source.slice(1), env, howToBring)));
  if (source !== '' && !source.startsWith(joinTokenPrefix) && existsSync(source))
    return parseJoinToken(readFile(source));
  const token = parseJoinToken(source);
  warn('the join token stands in the process list while this runs: better --token - or --token FILE');
  return token;
}

/** The credential of the unit that inro brings. */
export const credentialName = 'inro.join-token';
const howToBring = `write LoadCredential=${credentialName}:PATH into the unit, and --token @${credentialName}`;

function readFile(path: string): string {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (error) {
    throw unreadable(path, error);
  }
  try {
    return read(descriptor, path);
  } finally {
    closeSync(descriptor);
  }
}

function read(descriptor: number, from: string): string {
  const page = Buffer.alloc(pageBytes);
  let length = 0;
  try {
    for (let some = -1; some !== 0 && length < page.length; length += some)
      some = readSync(descriptor, page, length, page.length - length, null);
  } catch (error) {
    throw unreadable(from, error);
  }
  return page.toString('utf8', 0, length);
}

function unreadable(from: string, error: unknown): InroError {
  return new InroError(
    'bad_input',
    `the join token cannot be read from ${from}: ${(error as Error).message}`,
    {
      cause: error,
    },
  );
}
