/** The native addon as the rest of the program sees it: what the arena promises, and the small system calls. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { addon } from '../../src/system/addon.js';

const granuleBytes = 64;
const arenaBytes = 64 * 1024;
const kinds = ['auto', 'mlock'] as const;
const { EINVAL, ELOOP, EWOULDBLOCK } = constants.errno;

function alloc(arena: { alloc(bytes: number): ArrayBuffer | null }, bytes: number): ArrayBuffer {
  const piece = arena.alloc(bytes);
  if (piece === null) throw new Error(`no piece of ${bytes} bytes is free`);
  return piece;
}

function isZero(piece: ArrayBuffer): boolean {
  return new Uint8Array(piece).every((byte) => byte === 0);
}

function scratch(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'inro-addon-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  return folder;
}

/**
 * A Node process that answers by IPC: `commands` is the source of an object of functions, each called by its name.
 * `wrapper` is a shell line that ends by running "$@".
 */
function child(t: ExecutionContext, commands: string, wrapper = 'exec "$@"') {
  const source = `
    import { readFileSync } from 'node:fs';
    import { addon } from ${JSON.stringify(new URL('../../src/system/addon.js', import.meta.url).href)};
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    const collectUntil = async (done) => {
      for (let i = 0; i < 200 && !done(); i++) { globalThis.gc(); await turn(); await turn(); }
      return done();
    };
    const commands = ${commands};
    process.on('message', async (name) => process.send((await commands[name]()) ?? null));`;
  const node = [process.execPath, '--expose-gc', '--input-type=module', '--eval', source];
  const process_: ChildProcess = spawn('/bin/sh', ['-c', wrapper, 'sh', ...node], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  t.teardown(() => process_.kill('SIGKILL'));
  return {
    pid: process_.pid ?? 0,
    kill: async (): Promise<void> => {
      process_.kill('SIGKILL');
      await once(process_, 'exit');
    },
    ask: async (command: string): Promise<unknown> => {
      const gone = once(process_, 'exit').then(([rc, signal]) => {
        throw new Error(`child ended (${rc ?? signal}) before it answered ${command}`);
      });
      process_.send(command);
      const [answer] = (await Promise.race([once(process_, 'message'), gone])) as [unknown];
      gone.catch(() => undefined);
      return answer;
    },
  };
}

/** How often `needle` stands in the readable memory of a process. What the kernel refuses to show counts as not there. */
function copiesIn(pid: number, needle: Buffer): number {
  const windowBytes = 1 << 20;
  const window = Buffer.alloc(windowBytes);
  const mem = openSync(`/proc/${pid}/mem`, 'r');
  let copies = 0;
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')) {
      const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) r.*(?<!\[v\w+\])$/.exec(line) ?? [];
      if (from === undefined || to === undefined) continue;
      const end = Number.parseInt(to, 16);
      for (let at = Number.parseInt(from, 16); at < end; at += windowBytes - needle.length + 1) {
        const got = readUpTo(mem, window, Math.min(windowBytes, end - at), at);
        for (
          let i = window.indexOf(needle);
          i >= 0 && i + needle.length <= got;
          i = window.indexOf(needle, i + 1)
        ) {
          copies++;
        }
      }
    }
  } finally {
    closeSync(mem);
  }
  return copies;
}

function readUpTo(fd: number, into: Buffer, length: number, position: number): number {
  try {
    return readSync(fd, into, 0, length, position);
  } catch {
    return 0;
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ''; // closed meanwhile
  }
}

/** 16 bytes that neither process ever holds but where it computes them; `markerSource` writes the same ones into `view`. */
function marker(seed: number): Buffer {
  return Buffer.from(Array.from({ length: 16 }, (_, i) => (i * 167 + seed * (2 * i + 1)) & 255));
}
const markerSource = `(view, seed) => { for (let i = 0; i < 16; i++) view[i] = (i * 167 + seed * (2 * i + 1)) & 255; }`;

test('auto takes memfd_secret, or says in words why not; mlock says that it was asked for', (t) => {
  const auto = addon().createArena(1, 'auto').facts();
  if (auto.kind === 'memfd_secret') t.is(auto.note, '');
  else t.regex(auto.note, /^memfd_secret: /);
  const { kind, note, sizeBytes } = addon().createArena(1, 'mlock').facts();
  t.is(kind, 'mlock');
  t.regex(note, /^asked for mlock/);
  t.is(sizeBytes % 4096, 0);
});

for (const kind of kinds) {
  test(`${kind}: a piece is zeroed and detached by free, and zero when its place is given out again`, (t) => {
    const arena = addon().createArena(arenaBytes, kind);
    const piece = alloc(arena, 1000);
    t.is(piece.byteLength, 1000);
    t.true(isZero(piece));
    const view = new Uint8Array(piece).fill(0x5a);
    arena.free(piece);
    t.is(piece.byteLength, 0);
    t.is(view.length, 0);
    t.true(isZero(alloc(arena, arenaBytes)));
  });

  test(`${kind}: exhaustion gives null, and the arena is whole again when all came back`, (t) => {
    const arena = addon().createArena(arenaBytes, kind);
    t.is(arena.alloc(arenaBytes + 1), null);
    t.is(arena.alloc(Number.MAX_SAFE_INTEGER), null);
    const pieces = Array.from({ length: arenaBytes / granuleBytes }, () => alloc(arena, 1));
    t.is(arena.alloc(1), null);
    t.is(arena.facts().largestBytes, 0);
    // Odd ones first, so that every later one has to merge with both of its neighbours.
    for (const i of [1, 0]) for (let k = i; k < pieces.length; k += 2) arena.free(pieces[k] as ArrayBuffer);
    t.like(arena.facts(), { usedBytes: 0, freeBytes: arenaBytes, largestBytes: arenaBytes, pieces: 0 });
  });
}

for (const kind of kinds) {
  test(`${kind}: the kernel neither dumps the memory nor gives it to a fork, and no descriptor leads to it`, (t) => {
    const sizeKib = kind === 'auto' ? 4972 : 4976;
    const flagsOfThatSize = () =>
      [
        ...readFileSync('/proc/self/smaps', 'utf8').matchAll(
          new RegExp(`^(\\S+)-.*\\nSize: +${sizeKib} kB$[^]*?^VmFlags: (.*) $`, 'gm'),
        ),
      ].map(([, start, flags]) => ({ start, words: flags?.split(' ') ?? [] }));
    // V8 may have one of the same size.
    const before = new Set(flagsOfThatSize().map(({ start }) => start));
    const arena = addon().createArena(sizeKib * 1024, kind);
    const words = flagsOfThatSize().find(({ start }) => !before.has(start))?.words ?? [];
    t.true(words.includes('dd'), 'do not dump');
    t.true(words.includes('dc'), 'do not copy on fork');
    t.is(words.includes('lo'), arena.facts().locked, 'locked');
    const descriptors = readdirSync('/proc/self/fd').map((fd) => linkOf(`/proc/self/fd/${fd}`));
    t.false(descriptors.some((target) => target.includes('secretmem')));
  });
}

test('accounting is in granules; fragments are found first-fit and merge with their neighbours', (t) => {
  const arena = addon().createArena(arenaBytes, 'auto');
  const [a, b, c] = [alloc(arena, 1), alloc(arena, 65), alloc(arena, 64)];
  t.like(arena.facts(), { usedBytes: 4 * granuleBytes, freeBytes: arenaBytes - 4 * granuleBytes, pieces: 3 });

  arena.free(b);
  const rest = alloc(arena, arenaBytes - 4 * granuleBytes);
  t.like(arena.facts(), { freeBytes: 2 * granuleBytes, largestBytes: 2 * granuleBytes });
  t.is(arena.alloc(2 * granuleBytes + 1), null);

  const b2 = alloc(arena, 64); // the first half of where b was
  t.is(arena.facts().largestBytes, granuleBytes);
  arena.free(c); // merges with the second half
  t.is(arena.facts().largestBytes, 2 * granuleBytes);
  arena.free(a); // apart from it: b2 stands between
  t.like(arena.facts(), { freeBytes: 3 * granuleBytes, largestBytes: 2 * granuleBytes });
  arena.free(b2);
  t.like(arena.facts(), { freeBytes: 4 * granuleBytes, largestBytes: 4 * granuleBytes, pieces: 1 });
  arena.free(rest);
  t.is(arena.facts().largestBytes, arenaBytes);
});

test('two pieces never overlap', (t) => {
  const arena = addon().createArena(arenaBytes, 'auto');
  const pieces = [1, 64, 65, 500, 4096].map((bytes, i) => {
    const piece = alloc(arena, bytes);
    new Uint8Array(piece).fill(i + 1);
    return piece;
  });
  t.true(pieces.every((piece, i) => new Uint8Array(piece).every((byte) => byte === i + 1)));
});

test('a piece freed twice, a foreign buffer and a piece of another arena are refused', (t) => {
  const arena = addon().createArena(arenaBytes, 'auto');
  const other = addon().createArena(arenaBytes, 'auto');
  const piece = alloc(arena, 100);
  t.throws(() => other.free(piece), {
    instanceOf: TypeError,
    message: /^free: piece is not one of this arena's$/,
  });
  t.throws(() => arena.free(new ArrayBuffer(100)), {
    instanceOf: TypeError,
    message: /not one of this arena's/,
  });
  t.is(piece.byteLength, 100);
  arena.free(piece);
  t.throws(() => arena.free(piece), { instanceOf: TypeError, message: /^free: piece is detached/ });
  t.is(arena.facts().pieces, 0);
});

test('the finalizer of a freed piece, which runs later, leaves the next piece at its place alone', async (t) => {
  const held = child(
    t,
    `{
      run: async () => {
        const arena = addon().createArena(4096, 'auto');
        for (let i = 0; i < 100; i++) arena.free(arena.alloc(4096));
        const last = new Uint8Array(arena.alloc(4096)).fill(7);
        await collectUntil(() => false);
        return arena.facts().pieces === 1 && last.length === 4096 && last.every((byte) => byte === 7);
      },
    }`,
  );
  t.true(await held.ask('run'));
});

test('arguments of a wrong type or range are refused in words', (t) => {
  const native = addon();
  const arena = native.createArena(arenaBytes, 'auto');
  const wrong = (value: unknown): never => value as never;
  const type = (run: () => unknown, message: RegExp): void =>
    void t.throws(run, { instanceOf: TypeError, message });
  const range = (run: () => unknown, message: RegExp): void =>
    void t.throws(run, { instanceOf: RangeError, message });

  type(() => arena.alloc(wrong('64')), /^alloc: bytes must be a whole number of 1 or more, not a string$/);
  for (const bytes of [0, -1, 1.5, Number.NaN, Infinity])
    range(() => arena.alloc(bytes), /^alloc: bytes must be/);
  type(() => arena.free(wrong(undefined)), /^free: piece must be an ArrayBuffer, not undefined$/);
  type(() => arena.free(wrong(new Uint8Array(alloc(arena, 8)))), /not a view \(pass its buffer\)$/);
  type(() => arena.free(wrong(new SharedArrayBuffer(8))), /must be an ArrayBuffer/);
  type(() => native.createArena(wrong(1n), 'auto'), /^createArena: bytes must be .*, not a bigint$/);
  range(() => native.createArena(2 ** 40, 'auto'), /^createArena: bytes must be at most 1073741824$/);
  type(() => native.createArena(4096, wrong('tmpfs')), /kind must be 'auto' or 'mlock', not 'tmpfs'/);
  type(() => native.unmount(wrong(1)), /^unmount: path must be a string, not a number$/);
  type(() => native.lockFile('a\0b'), /no NUL/);
  type(() => native.lockable(wrong('1')), /^lockable: bytes must be .*, not a string$/);
  range(() => native.lockable(2 ** 40), /^lockable: bytes must be at most 2147483648$/);
  type(() => native.userId(''), /^userId: name must be a string that is not empty/);
});

test('a scan of the process finds no memfd_secret piece, one mlock piece, and none after free', async (t) => {
  const seed = 1 + Math.floor(Math.random() * 1e6);
  const held = child(
    t,
    `(() => {
      const write = ${markerSource};
      const arenas = { auto: addon().createArena(65536, 'auto'), mlock: addon().createArena(65536, 'mlock') };
      const pieces = { auto: arenas.auto.alloc(5000), mlock: arenas.mlock.alloc(5000) };
      return {
        auto: () => { write(new Uint8Array(pieces.auto, 4090), ${seed}); return arenas.auto.facts().kind; },
        mlock: () => write(new Uint8Array(pieces.mlock, 4090), ${seed + 1}),
        free: () => { arenas.auto.free(pieces.auto); arenas.mlock.free(pieces.mlock); },
      };
    })()`,
  );
  const kind = await held.ask('auto');
  await held.ask('mlock');
  t.is(copiesIn(held.pid, marker(seed + 1)), 1, 'the scan sees what it can');
  t.is(copiesIn(held.pid, marker(seed)), kind === 'memfd_secret' ? 0 : 1);
  await held.ask('free');
  t.is(copiesIn(held.pid, marker(seed + 1)), 0);
  t.is(copiesIn(held.pid, marker(seed)), 0);
});

for (const kind of kinds) {
  test(`${kind}: a piece that is collected without free is zeroed and taken back`, async (t) => {
    const held = child(
      t,
      `{
        run: async () => {
          const arena = addon().createArena(4096, '${kind}');
          (() => { new Uint8Array(arena.alloc(4096)).fill(7); })();
          const back = await collectUntil(() => arena.facts().pieces === 0);
          return back && new Uint8Array(arena.alloc(4096)).every((byte) => byte === 0);
        },
      }`,
    );
    t.true(await held.ask('run'));
  });
}

test('the memory stays mapped while a piece lives, the arena object being collected, and goes after it', async (t) => {
  // 4,984 KiB: a size that no other mapping has.
  const held = child(
    t,
    `{
      run: async () => {
        const sizes = () => readFileSync('/proc/self/smaps', 'utf8').match(/^Size: +4984 kB$/gm)?.length ?? 0;
        let piece = (() => addon().createArena(4984 * 1024, 'auto').alloc(4984 * 1024))();
        const before = sizes();
        await collectUntil(() => false);
        const view = new Uint8Array(piece);
        view.fill(9);
        const during = sizes();
        const works = view[0] === 9 && view[view.length - 1] === 9;
        return { before, during, works };
      },
      after: async () => {
        const sizes = () => readFileSync('/proc/self/smaps', 'utf8').match(/^Size: +4984 kB$/gm)?.length ?? 0;
        return collectUntil(() => sizes() === 0);
      },
    }`,
  );
  t.deepEqual(await held.ask('run'), { before: 1, during: 1, works: true });
  t.true(await held.ask('after'));
});

test("a worker's arena goes with the worker", async (t) => {
  const held = child(
    t,
    `{
      run: async () => {
        const { Worker } = await import('node:worker_threads');
        const sizes = () => readFileSync('/proc/self/smaps', 'utf8').match(/^Size: +4984 kB$/gm)?.length ?? 0;
        const source = \`
          import { parentPort } from 'node:worker_threads';
          import { addon } from '\${${JSON.stringify(new URL('../../src/system/addon.js', import.meta.url).href)}}';
          globalThis.piece = addon().createArena(4984 * 1024, 'auto').alloc(64);
          parentPort.postMessage('ready');
          setInterval(() => 0, 1000);\`;
        const worker = new Worker(new URL('data:text/javascript,' + encodeURIComponent(source)));
        await new Promise((resolve) => worker.once('message', resolve));
        const during = sizes();
        await worker.terminate();
        return { during, after: sizes() };
      },
    }`,
  );
  t.deepEqual(await held.ask('run'), { during: 1, after: 0 });
});

test('without leave to lock, the arena works and says so', async (t) => {
  const held = child(
    t,
    `{
      run: () => {
        addon();
        if (process.getuid() === 0) process.setuid(65534); // gives up CAP_IPC_LOCK, which knows no limit
        const arena = addon().createArena(1 << 20, 'auto');
        arena.free(arena.alloc(100));
        return arena.facts();
      },
    }`,
    'ulimit -l 64 && exec "$@"',
  );
  const facts = (await held.ask('run')) as { kind: string; locked: boolean; note: string };
  t.like(facts, { kind: 'mlock', locked: false });
  t.regex(facts.note, /^memfd_secret: .+; not locked: mlock: .+ \(RLIMIT_MEMLOCK is 65536 bytes\)$/);
});

test('a locked file is refused to every other, until its process dies', async (t) => {
  const path = join(scratch(t), 'lock');
  const held = child(t, `{ lock: () => addon().lockFile(${JSON.stringify(path)}) }`);
  t.true(((await held.ask('lock')) as number) >= 0);
  t.is(statSync(path).mode & 0o777, 0o600);
  t.is(addon().lockFile(path), -EWOULDBLOCK);
  await held.kill();
  t.true(addon().lockFile(path) >= 0);
  t.is(addon().lockFile(path), -EWOULDBLOCK, 'by another descriptor of the same process too');
});

test('a lock file that is a symbolic link is refused', (t) => {
  const folder = scratch(t);
  symlinkSync(join(folder, 'elsewhere'), join(folder, 'lock'));
  t.is(addon().lockFile(join(folder, 'lock')), -ELOOP);
});

test('unmounting what is no mount gives the errno', (t) => {
  const folder = scratch(t);
  // Whoever may not unmount at all is told so first (EPERM 1).
  t.is(addon().unmount(folder), process.getuid?.() === 0 ? EINVAL : constants.errno.EPERM);
});

test('names become numeric ids, unknown ones -1', (t) => {
  t.is(addon().userId('root'), 0);
  t.is(addon().groupId('root'), 0);
  t.is(addon().userId('no-such-name-here'), -1);
  t.is(addon().groupId('no-such-name-here'), -1);
});

test('the boot clock agrees with the kernel and never goes back', (t) => {
  const uptimeMs = Number.parseFloat(readFileSync('/proc/uptime', 'utf8')) * 1000;
  const first = addon().boottimeMs();
  t.true(first >= uptimeMs - 10 && first - uptimeMs < 60_000, `${first} against ${uptimeMs}`);
  t.true(addon().boottimeMs() >= first);
});

test('forbidDumps takes away core files', async (t) => {
  const held = child(t, `{ run: () => [addon().forbidDumps(), readFileSync('/proc/self/limits', 'utf8')] }`);
  const [rc, limits] = (await held.ask('run')) as [number, string];
  t.is(rc, 0);
  t.regex(limits, /^Max core file size +0 +0 /m);
  if (process.getuid?.() !== 0) t.throws(() => openSync(`/proc/${held.pid}/mem`, 'r'), { code: 'EACCES' });
});

test('overwriteFreedHeap says whether the C library can', async (t) => {
  const held = child(t, `{ run: () => addon().overwriteFreedHeap() }`);
  t.is(
    await held.ask('run'),
    'glibcVersionRuntime' in (process.report.getReport() as { header: object }).header,
  );
});
