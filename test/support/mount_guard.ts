/**
 * Directories for tests that mount. A time-out or a crash of the test process skips every teardown, so another
 * process waits for its end and then takes away what is still mounted.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, realpath } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface MountGuard {
  /** Does not exist yet. */
  mountPoint: string;
  /** An empty directory beside it. */
  scratch: string;
  /** Unmounts and removes everything. */
  cleanUp(): Promise<void>;
}

// stdin ends when the test process ends, however it does. A lazy unmount asks nothing of a dead mount, a forced
// one ends the requests of readers that would wait for ever. mountinfo writes a space as \040, printf's %b wants \0040.
const script = String.raw`
cat > /dev/null
while read -r _ _ _ _ escaped _; do
  point=$(printf %b "$(printf %s "$escaped" | sed 's/\\/\\0/g')")
  case $point in "$1"|"$1"/*) umount -f -l "$point";; esac
done < /proc/self/mountinfo
rm -rf --one-file-system -- "$1"
`;

export async function guardMounts(): Promise<MountGuard> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'inro-mount-')));
  const scratch = await mkdtemp(join(folder, 'scratch-'));
  const guard = spawn('sh', ['-c', script, 'guard', folder], {
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  return {
    mountPoint: join(folder, 'mount'),
    scratch,
    cleanUp: async () => {
      const ended = new Promise((resolve) => guard.once('exit', resolve));
      guard.stdin?.end();
      await ended;
    },
  };
}
