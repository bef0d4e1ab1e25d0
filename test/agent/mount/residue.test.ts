/** Reads leave no copy of a value in the memory of the process that serves it. */
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import test, { type ExecutionContext } from 'ava';
import { countInMemory } from '../../support/memory_scan.js';
import { guardMounts } from '../../support/mount_guard.js';
import { MountReader } from '../../support/mount_reader.js';

const canMount = existsSync('/dev/fuse') && process.getuid?.() === 0;
const mounting = canMount ? test.serial : test.serial.skip;
const reads = 200;

const at = (path: string): string => JSON.stringify(new URL(`../../../src/${path}`, import.meta.url).href);

/** Serves the value that it reads straight into the arena; each line of input is a step. */
const program = `
  import { openSync, readSync } from 'node:fs';
  import { createFuseNativeDriver } from ${at('agent/mount/fuse_native.js')};
  import { openArena } from ${at('crypto/arena.js')};
  import { createInterface } from 'node:readline';
  const [mountPoint, file, size] = process.argv.slice(1);
  const driver = createFuseNativeDriver({ onError: console.error, clock: { now: Date.now, boottimeMs: () => 0 } });
  driver.serveUntil(1);
  await driver.mount({ path: mountPoint });
  const arena = openArena(1 << 20, 'auto');
  const value = arena.take(Number(size));
  readSync(openSync(file), value.expose(), 0, Number(size), 0);
  const files = [{ target: 'key', source: 'key', uid: 0, gid: 0, mode: 0o444, modifiedMs: 0, mmap: false, value }];
  driver.publish({ taskId: 't1', serviceId: 's', serviceName: 'web', number: 1, graceMs: 0, files });
  console.log(arena.facts().kind);
  for await (const step of createInterface({ input: process.stdin })) {
    if (step === 'wipe') value.wipe();
    if (step === 'unmount') await driver.unmount();
    console.log('done');
  }
`;

interface Server {
  pid: number;
  step(step?: string): Promise<string>;
  ended: Promise<unknown>;
}

function serve(t: ExecutionContext, args: string[]): Server {
  const server: ChildProcess = spawn(process.execPath, ['--input-type=module', '-e', program, ...args], {
    cwd: '/',
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, GLIBC_TUNABLES: 'glibc.malloc.tcache_count=0' },
  });
  t.teardown(() => server.kill('SIGKILL'));
  const lines = createInterface({ input: server.stdout! })[Symbol.asyncIterator]();
  return {
    pid: server.pid ?? 0,
    ended: once(server, 'exit'),
    step: async (step) => {
      if (step !== undefined) server.stdin?.write(`${step}\n`);
      return String((await lines.next()).value);
    },
  };
}

for (const size of [16, 200, 65_536]) {
  mounting(
    `${size} bytes: none after ${reads} reads in small and large pieces, nor after the wipe`,
    async (t) => {
      const { mountPoint, scratch, cleanUp } = await guardMounts();
      t.teardown(cleanUp);
      const value = randomBytes(size);
      const file = `${scratch}/value`;
      await writeFile(file, value);
      const server = serve(t, [mountPoint, file, String(size)]);
      const kind = await server.step();
      const markers = [
        value.subarray(0, 16),
        value.subarray(size / 2 - 8, size / 2 + 8),
        value.subarray(-16),
      ];
      // What another process may read of the arena itself: nothing, or the one copy.
      const own = kind === 'memfd_secret' ? 0 : 1;

      const reader = new MountReader();
      t.teardown(() => reader.close());
      const fd = await reader.call<number>('openSync', `${mountPoint}/web/key`);
      for (let read = 0; read < reads; read++) {
        t.is((await reader.call<Uint8Array>('pread', fd, read % 2 === 0 ? size : 131_072, 0)).length, size);
      }
      t.deepEqual(await countInMemory(server.pid, markers), [own, own, own]);
      const [paths = 0] = await countInMemory(server.pid, [Buffer.from(mountPoint)]);
      t.true(paths > 0, 'the scan finds what is there');
      await server.step('wipe');
      t.deepEqual(await countInMemory(server.pid, markers), [0, 0, 0]);
    },
  );
}

mounting('after an unmount the process lives on and ends well, with freed memory overwritten', async (t) => {
  const { mountPoint, scratch, cleanUp } = await guardMounts();
  t.teardown(cleanUp);
  await writeFile(`${scratch}/value`, 'v');
  const server = serve(t, [mountPoint, `${scratch}/value`, '1']);
  await server.step();
  await server.step('unmount');
  // libfuse's thread, if it ended now, would touch its freed channel: give it the time to.
  await new Promise((resolve) => setTimeout(resolve, 300));
  t.is(await server.step('still there?'), 'done');
});
