/** How often operators have changed something, so that none changes what another one has changed since he looked. */
import { InroError } from '../model/error.js';

const lookAgain = 'somebody else has changed it since: look at it again, and decide anew';

/** As operators see it: from 1. */
export function versionOf({ changes }: { changes: number }): number {
  return changes + 1;
}

/** @param what names it, for the operator. @param ifVersion 0: whatever it is. @throws conflict when it is at another version. */
export function checkVersion(what: string, version: number, ifVersion: number): void {
  if (ifVersion === 0 || ifVersion === version) return;
  throw new InroError('conflict', `${what} is at version ${version}, not ${ifVersion}`, {
    remedy: lookAgain,
  });
}

/** To be called in the transaction that changes the record. @throws as checkVersion. */
export function noteChange(record: { changes: number }, what: string, ifVersion: number): void {
  checkVersion(what, versionOf(record), ifVersion);
  record.changes += 1;
}
