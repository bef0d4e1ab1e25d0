/** npm, node-gyp and buf each keep a cache below the home directory, which may be missing, empty or read-only. */
import { accessSync, constants, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { isAbsolute, join } from 'node:path';

/** @returns {env, remove}: variables to add for the steps; nothing when the usual places can be used */
export function cacheEnvironment() {
  const home = homeDirectory();
  const npmCache = process.env.npm_config_cache ?? '';
  if (usable(home) && (!isAbsolute(npmCache) || usable(npmCache))) {
    const moved = isAbsolute(npmCache) ? {} : { npm_config_cache: join(home, '.npm') };
    return { env: { HOME: home, ...moved }, remove: () => {} };
  }
  const own = mkdtempSync(join(tmpdir(), 'inro-setup-'));
  const env = {
    HOME: isAbsolute(home) ? home : own,
    npm_config_cache: join(own, 'npm'),
    npm_config_devdir: join(own, 'node-gyp'),
    XDG_CACHE_HOME: join(own, 'cache'),
  };
  return { env, remove: () => rmSync(own, { recursive: true, force: true }) };
}

function homeDirectory() {
  if (process.env.HOME) return process.env.HOME;
  try {
    return userInfo().homedir;
  } catch {
    return ''; // a uid without an entry
  }
}

/** A directory that is there, or can be made, and written to. */
function usable(directory) {
  if (!isAbsolute(directory)) return false;
  try {
    mkdirSync(directory, { recursive: true });
    accessSync(directory, constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
