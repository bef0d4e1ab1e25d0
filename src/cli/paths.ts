/**
 * Where things are unless an option says otherwise: the system's folders for root, the user's own for others (the XDG
 * Base Directory Specification). Each is looked up when it is asked for: who names all his paths needs no XDG_RUNTIME_DIR.
 */
import { statSync, type Stats } from 'node:fs';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { InroError } from '../model/error.js';

const uid = process.getuid?.() ?? -1;

export const paths = {
  get mount(): string {
    return join(runFolder(), 'secrets');
  },
  get agentSocket(): string {
    return join(runFolder(), 'agent.sock');
  },
  get managerSocket(): string {
    return join(runFolder(), 'manager.sock');
  },
  get agentState(): string {
    return join(stateFolder(), 'agent');
  },
  get enginePlugin(): string {
    return '/run/docker/plugins/inro.sock';
  },
  get agentConfig(): string | undefined {
    return inConfigFolder('agent.yaml');
  },
  get operatorIdentity(): string | undefined {
    return inConfigFolder('operator.pem');
  },
  get managerConfig(): string | undefined {
    return inConfigFolder('manager.yaml');
  },
} as const;

/** For sockets and the mount; it ends with the boot. @throws state_unusable when this user has no such folder. */
function runFolder(): string {
  if (uid === 0) return '/run/inro';
  const usual = `/run/user/${uid}`;
  const remedy = `set XDG_RUNTIME_DIR to a folder of your own that nobody else may enter (mode 0700)`;
  const named = absolute('XDG_RUNTIME_DIR');
  const wrong = whyNotOwn(named ?? usual);
  if (wrong === '') return join(named ?? usual, 'inro');
  const what =
    named === undefined ? `XDG_RUNTIME_DIR is not set, and ${usual}` : `XDG_RUNTIME_DIR is ${named}, which`;
  throw new InroError('state_unusable', `${what} ${wrong}`, { remedy });
}

/** Identities and what else must outlive the boot. */
function stateFolder(): string {
  if (uid === 0) return '/var/lib/inro';
  return join(absolute('XDG_STATE_HOME') ?? join(home(), '.local/state'), 'inro');
}

/** What an administrator writes; undefined for a user without a home, who then has no such file. */
function inConfigFolder(file: string): string | undefined {
  if (uid === 0) return join('/etc/inro', file);
  const folder = absolute('XDG_CONFIG_HOME') ?? (hasHome() ? join(homedir(), '.config') : undefined);
  return folder === undefined ? undefined : join(folder, 'inro', file);
}

/** The specification has relative paths ignored. */
function absolute(variable: string): string | undefined {
  const path = process.env[variable];
  return path !== undefined && isAbsolute(path) ? path : undefined;
}

/** Whoever else may write there could put a socket of his own in the place of ours. '' for a folder that is fit. */
function whyNotOwn(folder: string): string {
  let found: Stats;
  try {
    found = statSync(folder);
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    return code === 'ENOENT' ? 'is not there' : `cannot be looked at (${code})`;
  }
  if (!found.isDirectory()) return 'is no folder';
  if (found.uid !== uid) return `belongs to another user (uid ${found.uid})`;
  return (found.mode & 0o022) === 0 ? '' : 'can be written by other users';
}

function hasHome(): boolean {
  try {
    return isAbsolute(homedir());
  } catch {
    return false;
  }
}

function home(): string {
  try {
    return homedir();
  } catch (cause) {
    throw new InroError('state_unusable', 'this user has no home folder to keep state in', {
      remedy: 'set XDG_STATE_HOME, or name a folder with --state DIR',
      cause,
    });
  }
}
