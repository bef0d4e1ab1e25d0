/**
 * The order in which test files begin: the long ones first, so that no processor waits at the end for the last of them. A file
 * has a place here when it takes more than half a minute of a processor; at its end a run says which were the longest.
 */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const longFirst = [
  'test/native/native.test.ts',
  'test/cli/transcripts.test.ts',
  'test/e2e/11_handover.test.ts',
  'test/e2e/35_several_managers.test.ts',
  'test/e2e/34_killed_store.test.ts',
  'test/e2e/07_marker_scan.test.ts',
  // These two wait, most of the time.
  'test/e2e/24_renewal.test.ts',
  'test/e2e/13_systemd.test.ts',
  'test/e2e/14_programs.test.ts',
  'test/agent/credentials.test.ts',
  'test/e2e/28_ca_rotation.test.ts',
  'test/e2e/06_change.test.ts',
  'test/e2e/09_gone_means_gone.test.ts',
  'test/docs/json.test.ts',
  'test/scripts/pack.test.ts',
];
/** Each of these starts managers and agents; the files elsewhere take a few seconds. */
const longFolder = '/test/e2e/';

const gone = longFirst.filter(
  (file) => !existsSync(fileURLToPath(new URL(`../../${file}`, import.meta.url))),
);
if (gone.length > 0) throw new Error(`scripts/test/order.mjs names what is not there: ${gone.join(', ')}`);

/** For ava's `sortTestFiles`. */
export function byLength(one, other) {
  return place(one) - place(other) || one.localeCompare(other);
}

function place(path) {
  const found = longFirst.findIndex((file) => path.endsWith(`/${file}`));
  if (found !== -1) return found;
  return longFirst.length + (path.includes(longFolder) ? 0 : 1);
}
