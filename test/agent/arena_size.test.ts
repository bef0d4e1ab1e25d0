import { spawnSync } from 'node:child_process';
import test from 'ava';
import { arenaSize } from '../../src/agent/arena_size.js';
import { agentLimits } from '../../src/agent/limits.js';
import { InroError } from '../../src/model/error.js';

const MiB = 2 ** 20;
const limited =
  (limitBytes: number, lockedBytes = 0) =>
  (wanted: number) => ({
    bytes: Math.min(wanted, limitBytes - lockedBytes),
    limitBytes,
  });

test('who may lock enough gets all of it', (t) => {
  t.deepEqual(arenaSize(limited(64 * MiB)), {
    heapBytes: agentLimits.arenaBytes,
    nodes: agentLimits.maxNodes,
  });
});

test('who may lock less gets what fits, in whole pages, and it is known why', (t) => {
  for (const limitBytes of [2, 3, 8, 16, 40].map((size) => size * MiB)) {
    const { heapBytes, nodes, limitBytes: why } = arenaSize(limited(limitBytes));
    t.is(why, limitBytes);
    t.is(heapBytes % 4096, 0);
    t.is((nodes * 128) % 4096, 0);
    const around = agentLimits.replyBuffersBytes + 724_992;
    t.true(heapBytes + nodes * 128 + around <= limitBytes);
    t.true(heapBytes + nodes * 128 + around > limitBytes - 2 * 4096, 'and leaves nothing');
    t.true(heapBytes < agentLimits.arenaBytes && nodes < agentLimits.maxNodes);
  }
});

test('what is locked already is not there for the arena', (t) => {
  t.deepEqual(
    { ...arenaSize(limited(8 * MiB, 2 * MiB)), limitBytes: 0 },
    { ...arenaSize(limited(6 * MiB)), limitBytes: 0 },
  );
});

test('who may lock next to nothing is told how to change that', (t) => {
  const refused = (limitBytes: number, lockedBytes: number, message: RegExp) => {
    const error = t.throws<InroError>(() => arenaSize(limited(limitBytes, lockedBytes)), {
      instanceOf: InroError,
      message,
    });
    t.is(error?.code, 'not_permitted');
    t.regex(error?.remedy ?? '', /ulimit -l .*limits\.conf.*LimitMEMLOCK/);
  };
  refused(0, 0, /RLIMIT_MEMLOCK is 0 bytes$/);
  refused(65_536, 0, /RLIMIT_MEMLOCK is 64 KiB$/);
  refused(2 * MiB, MiB / 2, /RLIMIT_MEMLOCK is 2 MiB, and 1.5 MiB can be locked now$/);
  t.throws(() => arenaSize(() => ({ bytes: 0, limitBytes: Infinity })), {
    message: /RLIMIT_MEMLOCK is unlimited, and 0 bytes can be locked now$/,
  });
});

/** As a user without CAP_IPC_LOCK, in a process of its own; `code` prints JSON. */
function underLimit(kib: number, code: string): unknown {
  const at = (path: string) => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);
  const program = `
    import { arenaSize } from ${at('agent/arena_size.js')};
    import { openServedArena } from ${at('crypto/arena.js')};
    import { addon } from ${at('system/addon.js')};
    addon();
    if (process.getuid() === 0) process.setuid(65534);
    ${code}`;
  const { stdout, stderr } = spawnSync(
    'sh',
    ['-c', `ulimit -l ${kib} && exec "$@"`, 'sh', process.execPath, '--input-type=module', '-e', program],
    { cwd: '/', encoding: 'utf8' },
  );
  if (stderr !== '') throw new Error(stderr);
  return JSON.parse(stdout);
}

test('an arena of that size is locked, and room for the replies is left', (t) => {
  for (const kib of [2048, 8192]) {
    const { locked, leftBytes } = underLimit(
      kib,
      `const { heapBytes, nodes } = arenaSize((bytes) => addon().lockable(bytes));
       const { locked } = openServedArena(heapBytes, nodes).facts();
       console.log(JSON.stringify({ locked, leftBytes: addon().lockable(2 ** 20).bytes }));`,
    ) as { locked: boolean; leftBytes: number };
    t.true(locked);
    t.true(leftBytes >= agentLimits.replyBuffersBytes && leftBytes < agentLimits.replyBuffersBytes + 8192);
  }
});

test('what may be locked is found out by trying, and the soft limit is raised to the hard one', (t) => {
  const room = underLimit(
    64,
    `const all = [addon().lockable(40_000), addon().lockable(1 << 20)];
     addon().createArena(8192, 'auto');
     console.log(JSON.stringify([...all, addon().lockable(1 << 20)]));`,
  );
  t.deepEqual(room, [
    { bytes: 40_960, limitBytes: 65_536 },
    { bytes: 65_536, limitBytes: 65_536 },
    { bytes: 57_344, limitBytes: 65_536 },
  ]);
  t.deepEqual(underLimit(0, 'console.log(JSON.stringify(addon().lockable(4096)))'), {
    bytes: 0,
    limitBytes: 0,
  });
  const raised = underLimit(
    256,
    `import { execFileSync } from 'node:child_process';
     execFileSync('prlimit', ['--pid', String(process.pid), '--memlock=65536:262144']);
     console.log(JSON.stringify(addon().lockable(200_704)));`,
  );
  t.deepEqual(raised, { bytes: 200_704, limitBytes: 262_144 });
});
