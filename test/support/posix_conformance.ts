/**
 * What every mount driver must do, as named checks that run on any mount (after hanwen/go-fuse `posixtest`).
 * Each check begins with an empty mount, and looks at it from other processes only.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import type { MountDriver, PublishedFile } from '../../src/agent/mount/driver.js';
import { readMounts } from '../../src/agent/mount/mountpoint.js';
import type { Plaintext } from '../../src/crypto/plaintext.js';
import { systemClock } from '../../src/system/clock.js';
import { MountReader } from './mount_reader.js';

export interface ConformanceContext {
  driver: MountDriver;
  /** A plaintext of the kind that this driver serves. */
  take(payloadBytes: number): Plaintext;
  /** An empty directory outside the mount. */
  scratch: string;
}

export type Check = (mountPoint: string, context: ConformanceContext) => Promise<void>;

const modifiedMs = Date.UTC(2024, 1, 29, 12, 34, 56, 789);
const nobody = 65_534;

export const checks: Record<string, Check> = {
  'the root is closed and holds .task and the services': async (mount, context) => {
    context.driver.openService('id-db', 'db');
    publish(context, { files: { my_secret_data: '0123456789abcdef' } });
    const lines = (await shell(`ls -la ${mount}`)).split('\n');
    assert.match(lines[1] ?? '', /^drwx------ 5 root root .* \.$/);
    assert.match(lines[3] ?? '', /^dr-xr-xr-x 3 root root .* \.task$/);
    assert.match(lines[4] ?? '', /^dr-xr-xr-x 2 root root .* db$/);
    assert.match(lines[5] ?? '', /^dr-xr-xr-x 3 root root .* web$/);
  },

  'ls -la shows a secret': async (mount, context) => {
    publish(context, { files: { my_secret_data: '0123456789abcdef' } });
    const listing = await shell(`LC_ALL=C ls -la ${mount}/web`);
    assert.match(listing, /^-r--r--r-- 1 root root +16 Feb 29 +2024 my_secret_data$/m);
    assert.match(listing, /^lrwxrwxrwx 1 root root +3 .* \.\.data -> \.\.1$/m);
    assert.match(listing, /^dr-xr-xr-x 2 root root .* \.\.1$/m);
    assert.doesNotMatch(listing, /\?/);
  },

  'owner, mode, size, times and inode are those of the version': async (mount, context) => {
    publish(context, { files: { key: 'x'.repeat(1234) }, uid: 33, gid: 44, mode: 0o640 });
    await withReader(async (reader) => {
      const stat = await reader.call<Record<string, number>>('statSync', `${mount}/web/key`);
      const { mode, uid, gid, nlink, size, mtimeMs, ctimeMs, blocks, ino } = stat;
      assert.deepEqual(
        { mode, uid, gid, nlink, size },
        { mode: 0o100640, uid: 33, gid: 44, nlink: 1, size: 1234 },
      );
      assert.deepEqual([mtimeMs, ctimeMs, blocks], [modifiedMs, modifiedMs, 3]);
      assert.equal((await reader.call<{ ino: number }>('statSync', `${mount}/web/key`)).ino, ino);
      publish(context, { number: 2, files: { key: 'another' } });
      assert.notEqual((await reader.call<{ ino: number }>('statSync', `${mount}/web/key`)).ino, ino);
    });
    assert.equal(
      (await shell(`stat -c %i ${mount}/web/key`)).trim(),
      (await shell(`stat -c %i ${mount}/.task/t1/key`)).trim(),
    );
  },

  'find and readdir tell every name with its type': async (mount, context) => {
    publish(context, { files: { a: '1', 'b c': '2', ключ: '3' } });
    const found = (await shell(`find ${mount} -printf '%y %P\\n' | sort`)).trim().split('\n');
    const shown = (at: string) => [
      `d ${at}`,
      `d ${at}/..1`,
      ...names(`${at}/..1`),
      `l ${at}/..data`,
      ...names(at),
    ];
    const names = (at: string) => ['a', 'b c', 'ключ'].map((name) => `f ${at}/${name}`);
    assert.deepEqual(found.sort(), ['d ', 'd .task', ...shown('.task/t1'), ...shown('web')].sort());
  },

  'values of any size arrive byte by byte': async (mount, { driver, take, scratch }) => {
    const sizes = [0, 1, 16, 4095, 4096, 4097, 65_536, 131_073, 1_048_576];
    const files = sizes.map((size) => {
      const value = take(size);
      value.expose().forEach((_, at, bytes) => (bytes[at] = (at * 31 + (at >> 8) + size) & 0xff));
      return published(`v${size}`, value);
    });
    driver.publish({
      taskId: 't1',
      serviceId: 'id-web',
      serviceName: 'web',
      number: 1,
      graceMs: 10_000,
      files,
    });
    await shell(`cp -a ${mount}/web ${scratch}/copy && tar cf ${scratch}/all.tar -C ${mount} web`);
    await shell(`mkdir ${scratch}/tar && tar xf ${scratch}/all.tar -C ${scratch}/tar`);
    for (const { target, value } of files) {
      const want = createHash('sha256').update(value.expose()).digest('hex');
      const path = `${mount}/web/${target}`;
      const sums = await shell(
        `sha256sum < ${path}; cat ${path} | sha256sum; dd if=${path} bs=1000 status=none | sha256sum
         head -c 2000000 ${path} | sha256sum; sha256sum < ${scratch}/copy/${target}; sha256sum < ${scratch}/tar/web/${target}
         ${process.execPath} -e 'process.stdout.write(fs.readFileSync(process.argv[1]))' ${path} | sha256sum`,
      );
      assert.deepEqual(sums.match(/[0-9a-f]{64}/g), Array<string>(7).fill(want), target);
    }
  },

  'reads begin anywhere and end at the end': async (mount, context) => {
    publish(context, { files: { key: '0123456789' } });
    await withReader(async (reader) => {
      const fd = await reader.call<number>('openSync', `${mount}/web/key`);
      assert.equal(await reader.pread(fd, 100, 0), '0123456789');
      assert.equal(await reader.pread(fd, 3, 4), '456');
      assert.equal(await reader.pread(fd, 100, 9), '9');
      assert.equal(await reader.pread(fd, 100, 10), '');
      assert.equal(await reader.pread(fd, 100, 5_000_000_000), '');
      assert.equal((await reader.pread(fd, 4, -1)) + (await reader.pread(fd, 4, -1)), '01234567');
      assert.equal((await reader.pread(fd, 4, -1)) + (await reader.pread(fd, 4, -1)), '89');
    });
    assert.equal(await shell(`dd if=${mount}/web/key bs=1 skip=7 count=2 status=none`), '78');
    assert.equal(await shell(`head -c 3 ${mount}/web/key; tail -c 3 ${mount}/web/key`), '012789');
  },

  'the usual programs read it': async (mount, context) => {
    publish(context, { files: { key: 'the value\n' } });
    const path = `${mount}/web/key`;
    assert.equal(
      await shell(`cd ${mount}/web && cat key && grep value ..data/key`),
      'the value\nthe value\n',
    );
    assert.equal(
      await shell(`cp ${path} ${context.scratch}/k && cmp ${path} ${context.scratch}/k && wc -c < ${path}`),
      '10\n',
    );
    assert.match(await shell(`stat -f ${mount}`), /Namelen: 255/);
    assert.match(await shell(`df ${mount}`), new RegExp(`^inro .* ${mount}$`, 'm'));
    assert.equal(
      await shell(`. ${path} 2>/dev/null; while read -r line; do echo "$line"; done < ${path}`),
      'the value\n',
    );
    await ifPresent(
      'python3',
      `python3 -c 'import sys; sys.stdout.write(open(sys.argv[1]).read())' ${path}`,
      'the value\n',
    );
    await ifPresent('busybox', `busybox cat ${path}`, 'the value\n');
    await ifPresent('openssl', `openssl base64 -in ${path}`, 'dGhlIHZhbHVlCg==\n');
  },

  'the mount says that it is read-only and runs nothing': async (mount, context) => {
    publish(context, { files: { script: '#!/bin/sh\necho ran\n' }, mode: 0o555 });
    const entry = (await readMounts()).find(({ mountPoint }) => mountPoint === mount);
    for (const option of ['ro', 'nosuid', 'nodev', 'noexec'])
      assert.ok(entry?.options.includes(option), option);
    assert.deepEqual([entry?.fsType, entry?.source], ['fuse.inro', 'inro']);
    await withReader(async (reader) => {
      assert.equal(await reader.fails('execFileSync', `${mount}/web/script`, []), 'EACCES');
    });
  },

  'every attempt to write fails with EROFS': async (mount, context) => {
    publish(context, { files: { key: 'value', other: 'other' }, mode: 0o666 });
    const web = `${mount}/web`;
    const attempts: [Parameters<MountReader['fails']>[0], ...unknown[]][] = [
      ['openSync', `${web}/key`, 'w'],
      ['openSync', `${web}/key`, 'r+'],
      ['openSync', `${web}/key`, 'a'],
      ['openSync', `${web}/new`, 'wx'],
      ['openSync', `${mount}/new`, 'w'],
      ['truncateSync', `${web}/key`, 0],
      ['unlinkSync', `${web}/key`],
      ['unlinkSync', `${web}/..data`],
      ['renameSync', `${web}/key`, `${web}/other`],
      ['renameSync', web, `${mount}/else`],
      ['linkSync', `${web}/key`, `${web}/new`],
      ['symlinkSync', 'key', `${web}/new`],
      ['mkdirSync', `${web}/new`],
      ['mkdirSync', `${mount}/new`],
      ['rmdirSync', `${web}/..1`],
      ['rmdirSync', web],
      ['chmodSync', `${web}/key`, 0o777],
      ['chmodSync', mount, 0o777],
      ['chownSync', `${web}/key`, 1, 1],
      ['lchownSync', `${web}/..data`, 1, 1],
      ['utimesSync', `${web}/key`, 1, 1],
      ['lutimesSync', `${web}/..data`, 1, 1],
      ['accessSync', `${web}/key`, 2],
    ];
    await withReader(async (reader) => {
      for (const attempt of attempts)
        assert.equal(await reader.fails(...attempt), 'EROFS', attempt.join(' '));
      assert.equal(await reader.fails('accessSync', `${web}/key`, 4), 'ok');
    });
    const fifo = await shell(`LC_ALL=C mkfifo ${web}/new 2>&1 || true`);
    assert.match(fifo, /Read-only file system/);
    const xattr = `import os, sys
for change in (lambda: os.setxattr(sys.argv[1], "user.a", b"1"), lambda: os.removexattr(sys.argv[1], "user.a")):
  try: change(); print("done")
  except OSError as error: print(error.errno)`;
    await ifPresent('python3', `python3 -c '${xattr}' ${web}/key`, '30\n30\n');
    assert.equal(await shell(`cat ${web}/key ${web}/other`), 'valueother');
  },

  'uid, gid and mode are enforced for another user': async (mount, { driver, take, scratch }) => {
    const owned = (target: string, uid: number, gid: number, mode: number) => ({
      ...published(target, filled(take, target)),
      uid,
      gid,
      mode,
    });
    const files = [
      owned('world', 0, 0, 0o444),
      owned('own', nobody, 0, 0o400),
      owned('group', 0, nobody, 0o040),
      owned('roots', 0, 0, 0o400),
      owned('roots-group', 0, 0, 0o440),
      owned('own-but-0', nobody, nobody, 0o044),
    ];
    driver.publish({
      taskId: 't1',
      serviceId: 'id-web',
      serviceName: 'web',
      number: 1,
      graceMs: 10_000,
      files,
    });
    await withReader(
      async (reader) => {
        for (const folder of [scratch, `${scratch}/..`]) await reader.call('chmodSync', folder, 0o755);
        await reader.call('mkdirSync', `${scratch}/bound`);
        await reader.call('execFileSync', 'mount', ['--bind', `${mount}/web`, `${scratch}/bound`]);
        await reader.call('become', nobody);
        const outcome = async (name: string) => [
          name,
          await reader.fails('readWhole', `${scratch}/bound/${name}`),
        ];
        assert.deepEqual(await Promise.all(files.map(({ target }) => outcome(target))), [
          ['world', 'ok'],
          ['own', 'ok'],
          ['group', 'ok'],
          ['roots', 'EACCES'],
          ['roots-group', 'EACCES'],
          ['own-but-0', 'EACCES'],
        ]);
        assert.equal(await reader.fails('readdirSync', `${scratch}/bound`), 'ok');
        assert.equal(await reader.fails('chmodSync', `${scratch}/bound/own`, 0o666), 'EROFS');
      },
      { privateMounts: true },
    );
  },

  'the mount itself is closed to another user': async (mount, context) => {
    publish(context, { files: { key: 'value' } });
    await withReader(async (reader) => {
      // The directory that holds the mount is a test's: open it, so that only the mount's own mode is asked.
      await reader.call('chmodSync', `${mount}/..`, 0o755);
      await reader.call('become', nobody);
      for (const path of ['', '/web', '/web/key', '/.task', '/.task/t1/key']) {
        assert.equal(await reader.fails('openSync', `${mount}${path}`), 'EACCES', path);
      }
    });
  },

  '..data is a directory of the same set': async (mount, context) => {
    publish(context, { number: 7, files: { a: 'one', b: 'two' } });
    await withReader(async (reader) => {
      for (const place of [`${mount}/web`, `${mount}/.task/t1`]) {
        assert.equal(await reader.call('readlinkSync', `${place}/..data`), '..7');
        assert.deepEqual((await reader.call<string[]>('readdirSync', `${place}/..data`)).sort(), ['a', 'b']);
        assert.deepEqual((await reader.call<string[]>('readdirSync', place)).sort(), [
          '..7',
          '..data',
          'a',
          'b',
        ]);
        assert.deepEqual(await reader.call('readSet', place, ['a', 'b']), ['one', 'two']);
      }
      publish(context, { number: 8, files: { a: 'three' } });
      assert.equal(await reader.call('readlinkSync', `${mount}/web/..data`), '..8');
      assert.equal(await reader.fails('statSync', `${mount}/web/..7`), 'ENOENT');
      assert.equal(await reader.fails('statSync', `${mount}/web/..data/b`), 'ENOENT');
    });
  },

  'each task has its own files, the service the newest task': async (mount, context) => {
    publish(context, { taskId: 'old', files: { key: 'old' } });
    publish(context, { taskId: 'new', files: { key: 'new' } });
    publish(context, { taskId: 'old', number: 2, files: { key: 'old again' } });
    const read = () => shell(`cat ${mount}/web/key ${mount}/.task/*/key`);
    assert.equal(await read(), 'newnewold again');
    context.driver.withdraw('new');
    assert.equal(await read(), 'old againold again');
    assert.equal(await shell(`ls -A ${mount}/.task`), 'old\n');
  },

  'rotation: an open descriptor keeps its version, the next open sees the new one': async (
    mount,
    context,
  ) => {
    const [old] = publish(context, { files: { key: 'the old value' } });
    await withReader(async (reader) => {
      const before = await reader.call<number>('openSync', `${mount}/web/key`);
      assert.equal(await reader.pread(before, 7, 0), 'the old');
      publish(context, { number: 2, files: { key: 'new' } });
      const after = await reader.call<number>('openSync', `${mount}/web/key`);
      assert.equal(await reader.pread(after, 100, 0), 'new');
      assert.equal(await reader.pread(before, 100, 0), 'the old value');
      assert.equal(await reader.pread(before, 100, 4), 'old value');

      old?.value.wipe();
      assert.equal(await reader.fails('pread', before, 100, 0), 'ESTALE');
      assert.equal(await reader.fails('pread', before, 100, 4), 'ESTALE');
      assert.equal(await reader.pread(after, 100, 0), 'new');
      await reader.call('closeSync', before);
    });
  },

  'fstat of an open descriptor tells its own version': async (mount, context) => {
    publish(context, { files: { key: 'the old value' } });
    await withReader(async (reader) => {
      const fd = await reader.call<number>('openSync', `${mount}/web/key`);
      publish(context, { number: 2, files: { key: 'new' } });
      assert.equal((await reader.call<{ size: number }>('fstatSync', fd)).size, 13);
    });
  },

  'a wiped value cannot be read or opened, though it is still published': async (mount, context) => {
    const [file] = publish(context, { files: { key: 'value' } });
    await withReader(async (reader) => {
      const fd = await reader.call<number>('openSync', `${mount}/web/key`);
      file?.value.wipe();
      assert.equal(await reader.fails('pread', fd, 1, 0), 'ESTALE');
      assert.equal(await reader.fails('pread', fd, 1, 100), 'ESTALE');
      assert.equal(await reader.fails('openSync', `${mount}/web/key`), 'ESTALE');
      assert.equal((await reader.call<{ size: number }>('statSync', `${mount}/web/key`)).size, 5);
    });
  },

  'withdraw: the names are gone, the service directory stays and fills again': async (mount, context) => {
    publish(context, { files: { key: 'value' } });
    await withReader(async (reader) => {
      const { ino } = await reader.call<{ ino: number }>('statSync', `${mount}/web`);
      const fd = await reader.call<number>('openSync', `${mount}/web/key`);
      context.driver.withdraw('t1');
      for (const path of ['web/key', 'web/..data', 'web/..1', 'web/..1/key', '.task/t1', '.task/t1/key']) {
        assert.equal(await reader.fails('lstatSync', `${mount}/${path}`), 'ENOENT', path);
        assert.equal(await reader.fails('openSync', `${mount}/${path}`), 'ENOENT', path);
      }
      assert.deepEqual(await reader.call('readdirSync', `${mount}/web`), []);
      assert.deepEqual(await reader.call('readdirSync', `${mount}/.task`), []);
      assert.equal(
        await reader.fails('pread', fd, 100, 0),
        'ESTALE',
        'though another task may still need the value',
      );
      publish(context, { taskId: 't2', files: { key: 'next' } });
      assert.equal((await reader.call<{ ino: number }>('statSync', `${mount}/web`)).ino, ino);
      assert.equal(await shell(`cat ${mount}/web/key`), 'next');
    });
  },

  'a reference that is taken away cuts descriptors off, all versions, though the values live on': async (
    mount,
    context,
  ) => {
    publish(context, { files: { key: 'one', other: 'stays' } });
    await withReader(async (reader) => {
      const first = await reader.call<number>('openSync', `${mount}/web/key`);
      const other = await reader.call<number>('openSync', `${mount}/web/other`);
      publish(context, { number: 2, files: { key: 'two', other: 'stays' } });
      const second = await reader.call<number>('openSync', `${mount}/web/key`);
      publish(context, { number: 3, files: { other: 'stays' } });
      assert.equal(await reader.fails('pread', first, 100, 0), 'ESTALE');
      assert.equal(await reader.fails('pread', second, 100, 0), 'ESTALE');
      assert.equal(await reader.pread(other, 100, 0), 'stays');
    });
  },

  'lease over: open and read fail with ESTALE until there is a new one': async (mount, context) => {
    publish(context, { files: { key: 'value' } });
    await withReader(async (reader) => {
      const fd = await reader.call<number>('openSync', `${mount}/web/key`);
      context.driver.serveUntil(0);
      assert.equal(await reader.fails('pread', fd, 1, 0), 'ESTALE');
      assert.equal(await reader.fails('openSync', `${mount}/web/key`), 'ESTALE');
      assert.equal(await reader.fails('readdirSync', `${mount}/web`), 'ok');
      context.driver.serveUntil(Number.MAX_SAFE_INTEGER);
      assert.equal(await reader.pread(fd, 100, 0), 'value');
      assert.equal(await reader.fails('openSync', `${mount}/web/key`), 'ok');
    });
  },

  'a lease of its own: earlier or later than the others a file fails with ESTALE, and nothing outlasts the end of all':
    async (mount, context) => {
      const hourMs = 3_600_000;
      const files = ['usual', 'earlier', 'later'].map((target, n) => ({
        ...published(target, filled(context.take, target)),
        leaseShiftMs: [0, -hourMs, hourMs][n] as number,
      }));
      const names = { taskId: 't1', serviceId: 'id-web', serviceName: 'web' };
      context.driver.publish({ ...names, number: 1, graceMs: 10_000, files });
      await withReader(async (reader) => {
        const readable = async (): Promise<string[]> => {
          const outcomes: string[] = [];
          for (const { target } of files) {
            const outcome = await reader.fails('openSync', `${mount}/web/${target}`);
            if (outcome !== 'ok') assert.equal(outcome, 'ESTALE');
            else outcomes.push(target);
          }
          return outcomes;
        };
        const nowMs = systemClock.boottimeMs();
        context.driver.serveUntil(nowMs + 2 * hourMs);
        assert.deepEqual(await readable(), ['usual', 'earlier', 'later']);
        context.driver.serveUntil(nowMs + hourMs / 2);
        assert.deepEqual(await readable(), ['usual', 'later']);
        context.driver.serveUntil(Math.max(1, nowMs - hourMs / 2));
        assert.deepEqual(await readable(), ['later']);
        context.driver.serveUntil(0);
        assert.deepEqual(await readable(), []);
      });
    },

  'a change of several files is one step': async (mount, context) => {
    const targets = ['a', 'b', 'c'];
    const publishRound = (round: number) => {
      // Another length in each round, so that a mixture of two versions cannot look whole.
      const text = `${round}:${'x'.repeat(round % 97)}.`;
      publish(context, { number: round, files: Object.fromEntries(targets.map((target) => [target, text])) });
    };
    let round = 1;
    publishRound(round);
    const publishing = setInterval(() => publishRound(++round), 10);
    try {
      await withReader(async (reader) => {
        const seen = new Set<string>();
        for (let read = 0; read < 150; read++) {
          const set = await reader.call<string[]>('readSet', `${mount}/web`, targets);
          assert.equal(new Set(set).size, 1, `a mixed set: ${set.join(' ')}`);
          seen.add(set[0] ?? '');
          const single = Buffer.from(await reader.call<Uint8Array>('readWhole', `${mount}/web/b`)).toString();
          assert.equal(single, `${Number.parseInt(single)}:${'x'.repeat(Number.parseInt(single) % 97)}.`);
          const listed = await reader.call<string[]>('readdirSync', `${mount}/web`);
          assert.equal(
            listed.filter((name) => targets.includes(name) || name === '..data').length,
            4,
            listed.join(' '),
          );
        }
        assert.ok(seen.size > 10, `${seen.size} generations seen`);
      });
    } finally {
      clearInterval(publishing);
    }
  },

  'many readers at once': async (mount, context) => {
    publish(context, { files: { key: 'k'.repeat(65_536) } });
    const sums = await shell(`for n in 1 2 3 4 5 6 7 8; do
        (for m in 1 2 3 4 5 6 7 8; do cat ${mount}/web/key | cksum; done) & done; wait`);
    const lines = sums.trim().split('\n');
    assert.deepEqual([lines.length, new Set(lines).size], [64, 1]);
  },

  'a bind mount of a service lives through rotation, withdrawal and the next task': async (
    mount,
    context,
  ) => {
    publish(context, { files: { key: 'one' } });
    await withReader(
      async (reader) => {
        const bound = `${context.scratch}/bound`;
        await reader.call('mkdirSync', bound);
        await reader.call('execFileSync', 'mount', ['--bind', `${mount}/web`, bound]);
        const read = async () =>
          Buffer.from(await reader.call<Uint8Array>('readWhole', `${bound}/key`)).toString();
        assert.equal(await read(), 'one');
        publish(context, { number: 2, files: { key: 'two' } });
        assert.equal(await read(), 'two');
        context.driver.withdraw('t1');
        assert.deepEqual(await reader.call('readdirSync', bound), []);
        publish(context, { taskId: 't2', files: { key: 'three' } });
        assert.equal(await read(), 'three');
      },
      { privateMounts: true },
    );
  },

  'a service made anew under an old name stays out of an old bind mount': async (mount, context) => {
    publish(context, { files: { key: 'one' } });
    await withReader(
      async (reader) => {
        const bound = `${context.scratch}/bound`;
        await reader.call('mkdirSync', bound);
        await reader.call('execFileSync', 'mount', ['--bind', `${mount}/web`, bound]);
        context.driver.withdraw('t1');
        publish(context, { serviceId: 'id-other', taskId: 't2', files: { key: 'not for the old one' } });
        assert.notEqual(await reader.fails('readWhole', `${bound}/key`), 'ok');
      },
      { privateMounts: true },
    );
  },

  'a bind mount elsewhere shows nothing after the unmount': async (mount, context) => {
    publish(context, { files: { key: 'one' } });
    await withReader(
      async (reader) => {
        const bound = `${context.scratch}/bound`;
        await reader.call('mkdirSync', bound);
        await reader.call('execFileSync', 'mount', ['--bind', `${mount}/web`, bound]);
        await context.driver.unmount();
        assert.notEqual(await reader.fails('readWhole', `${bound}/key`), 'ok');
        assert.notEqual(await reader.fails('openSync', bound), 'ok');
      },
      { privateMounts: true },
    );
  },

  'unmount with an open descriptor: it fails from then on, and the mount point is gone': async (
    mount,
    context,
  ) => {
    publish(context, { files: { key: 'value' } });
    await withReader(async (reader) => {
      const fd = await reader.call<number>('openSync', `${mount}/web/key`);
      await context.driver.unmount();
      assert.match(await reader.fails('pread', fd, 1, 0), /^(ESTALE|ENOTCONN|ECONNABORTED|EIO)$/);
      assert.equal(await reader.fails('statSync', mount), 'ENOENT');
      assert.ok(!(await readMounts()).some(({ mountPoint }) => mountPoint === mount));
    });
  },
};

interface Publication {
  taskId?: string;
  serviceId?: string;
  number?: number;
  /** target -> text */
  files: Record<string, string>;
  uid?: number;
  gid?: number;
  mode?: number;
}

/** Publishes a generation of the service `web`; gives back its files. */
function publish({ driver, take }: ConformanceContext, publication: Publication): PublishedFile[] {
  const { taskId = 't1', serviceId = 'id-web', number = 1, files: texts, ...attributes } = publication;
  const files = Object.entries(texts).map(([target, text]) => ({
    ...published(target, filled(take, text)),
    ...attributes,
  }));
  driver.publish({ taskId, serviceId, serviceName: 'web', number, graceMs: 10_000, files });
  return files;
}

function published(target: string, value: Plaintext): PublishedFile {
  return { target, source: target, uid: 0, gid: 0, mode: 0o444, modifiedMs, mmap: false, value };
}

function filled(take: ConformanceContext['take'], text: string): Plaintext {
  const bytes = new TextEncoder().encode(text);
  const value = take(bytes.length);
  value.expose().set(bytes);
  return value;
}

async function withReader(
  use: (reader: MountReader) => Promise<void>,
  options?: ConstructorParameters<typeof MountReader>[0],
): Promise<void> {
  const reader = new MountReader(options);
  try {
    await use(reader);
  } finally {
    await reader.close();
  }
}

/** The script's standard output; it must succeed. */
async function shell(script: string): Promise<string> {
  const options = { cwd: '/', timeout: 30_000, killSignal: 'SIGKILL', maxBuffer: 16 << 20 } as const;
  return (await promisify(execFile)('sh', ['-c', script], options)).stdout;
}

async function ifPresent(program: string, script: string, want: string): Promise<void> {
  const found = await shell(`command -v ${program} || true`);
  if (found !== '') assert.equal(await shell(script), want, program);
}
