/** Certificates are believed by the wall clock. */
import { note, ok, warn, type Finding } from './finding.js';

/** @param said by `timedatectl show -p NTPSynchronized --value`; undefined when it could not be asked. */
export function clockSync(said: string | undefined): Finding {
  const name = 'clock';
  switch (said?.trim()) {
    case 'yes':
      return ok(name, 'synchronised');
    case 'no':
      return warn(
        name,
        'not synchronised: a clock that is wrong refuses certificates that are good',
        'timedatectl set-ntp true, or start chrony',
      );
    default:
      return note(name, 'cannot tell whether it is synchronised: timedatectl does not say');
  }
}
