/** The socket on which units of systemd ask for their credentials, also from one agent to the next. */
import { closeSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { addon } from '../../system/addon.js';
import { makeFolder } from '../../system/files.js';

export interface Listener {
  path: string;
  descriptor: number;
}

/**
 * @param inherited a predecessor's, which is taken: those who wait there wait on.
 * @throws words, when another program listens there, or there can be no socket.
 */
export function openListener(path: string, inherited: number | undefined): Listener {
  if (inherited !== undefined) {
    if (addon().listensForCredentials(inherited, path)) return { path, descriptor: inherited };
    closeSync(inherited);
  }
  makeFolder(dirname(path), 0o755);
  return { path, descriptor: addon().listenForCredentials(path) };
}

/** Nobody is to find it any more. */
export function removeListener({ path }: Listener): void {
  try {
    unlinkSync(path);
  } catch {
    return; // somebody else did
  }
}
