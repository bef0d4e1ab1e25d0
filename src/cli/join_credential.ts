/**
 * Joining at the first start of a service, by a token that its unit brings as a credential (systemd.exec(5)
 * LoadCredential=inro.join-token): it stands in no process list, and in no file that others can read.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { hasIdentity } from '../agent/identity.js';
import { joinCluster } from '../agent/join.js';
import { asInroError, InroError } from '../model/error.js';
import { parseJoinToken } from '../pki/join_token.js';
import { systemClock } from '../system/clock.js';
import { claimStateFolder } from '../system/files.js';
import { credentialName } from './join_token_input.js';

/** What the unit brings where nobody has put a token. */
const none = 'none';

export interface CredentialJoin {
  stateFolder: string;
  managers: readonly string[] | undefined;
  log: Logger;
}

/** Nothing where this host has joined, or there is no such credential. @throws whatever joining throws. */
export async function joinByCredential(
  { stateFolder, managers, log }: CredentialJoin,
  folder = process.env['CREDENTIALS_DIRECTORY'],
): Promise<void> {
  if (folder === undefined || hasIdentity(stateFolder)) return;
  const text = readCredential(join(folder, credentialName));
  if (text === '' || text === none) return;
  const token = parseJoinToken(text);
  if (managers === undefined || managers.length === 0) {
    throw new InroError('bad_input', 'there is a join token, but nothing says where a manager is', {
      remedy: "write 'managers: [HOST:PORT]' into /etc/inro/agent.yaml",
    });
  }
  const release = claimStateFolder(stateFolder, 'agent');
  try {
    const joined = await joinOneOf(managers, (manager) =>
      joinCluster({
        token,
        manager,
        stateFolder,
        clock: systemClock,
        onWaiting: (node) => log.warn({ node }, `waiting for approval: inro node approve ${node}`),
      }),
    );
    const { nodeId, clusterId } = joined;
    log.info({ nodeId, clusterId }, 'joined by the credential inro.join-token, which is not needed any more');
  } finally {
    release();
  }
}

/** The first that can be reached. */
async function joinOneOf<T>(
  managers: readonly string[],
  tryOne: (manager: string) => Promise<T>,
): Promise<T> {
  let last: unknown;
  for (const manager of managers) {
    try {
      return await tryOne(manager);
    } catch (error) {
      if (asInroError(error).code !== 'unreachable') throw error;
      last = error;
    }
  }
  throw last;
}

function readCredential(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw new InroError('bad_input', `the credential ${path} cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
