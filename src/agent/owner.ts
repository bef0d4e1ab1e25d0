/** A reference's owner as numbers of this host; names are looked up where the file is shown. */
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';
import { addon } from '../system/addon.js';

/** @throws not_found when the host knows no such user or group. */
export function ownerIds({ uid, gid }: { uid: string; gid: string }): { uid: number; gid: number } {
  return {
    uid: idOf('user', uid, (name) => addon().userId(name)),
    gid: idOf('group', gid, (name) => addon().groupId(name)),
  };
}

function idOf(kind: 'user' | 'group', text: string, look: (name: string) => number): number {
  if (/^[0-9]+$/.test(text)) return Number(text);
  const id = look(text);
  if (id < 0) {
    throw new InroError('not_found', `this node has no ${kind} named ${quoted(text)}`, {
      remedy: `give the reference a number, or add the ${kind} to the node`,
    });
  }
  return id;
}
