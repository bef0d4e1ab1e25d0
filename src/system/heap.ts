/**
 * glibc keeps small freed blocks in a cache of each thread, as they are, and only a tunable at the start of a
 * process turns that off. libfuse's replies pass through such blocks.
 */
import { addon } from './addon.js';

const tunable = 'glibc.malloc.tcache_count=0';

/** True when blocks that this process frees may stay readable. */
export function keepsSmallBlocks(): boolean {
  return !(process.env.GLIBC_TUNABLES ?? '').split(':').includes(tunable);
}

/**
 * Starts this very program anew, in the same process and with the same arguments, with the tunable set. Does
 * nothing when it is set already; to be called before anything is opened or begun. Only standard input, output
 * and error live through it: whoever hands the process other descriptors sets the tunable himself.
 */
export function restartWithoutBlockCache(): void {
  if (!keepsSmallBlocks()) return;
  const tunables = [process.env.GLIBC_TUNABLES, tunable]
    .filter((text) => text !== undefined && text !== '')
    .join(':');
  const environment = Object.entries({ ...process.env, GLIBC_TUNABLES: tunables }).map(
    ([name, value]) => `${name}=${value ?? ''}`,
  );
  addon().replaceProcess(
    process.execPath,
    [process.argv0, ...process.execArgv, ...process.argv.slice(1)],
    environment,
  );
  // Still here: the agent works without it, and says so in its status.
}
