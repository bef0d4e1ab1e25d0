/** Credentials that a unit of systemd brings: files in a folder that it names (systemd.exec(5)). */
import { join } from 'node:path';
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';

/** @throws bad_input, saying why there is none, and what to do. */
export function credentialPath(name: string, env: NodeJS.ProcessEnv, remedy: string): string {
  const folder = env['CREDENTIALS_DIRECTORY'];
  if (folder !== undefined && /^[^/]+$/.test(name) && name !== '..' && name !== '.')
    return join(folder, name);
  const why = folder === undefined ? 'no unit brings credentials here' : 'that is not the name of one';
  throw new InroError('bad_input', `there is no credential ${quoted(name)}: ${why}`, { remedy });
}
