/** What a command needs of the user, said in one line before anything is begun. */
import { InroError } from '../model/error.js';

export function checkMayMount(command: string): void {
  if (process.getuid?.() === 0) return;
  throw new InroError('not_permitted', `${command} needs root to mount the secrets; run it with sudo`);
}
