import { spawn, spawnSync } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import {
  openSync,
  closeSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
  chmodSync,
  readdirSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { openLmdbStore } from '../../src/store/lmdb.js';
import type { Store } from '../../src/store/store.js';
import { labStep } from '../support/lab.js';
import { refuses } from '../support/refuses.js';
import { checks } from '../support/store_conformance.js';
import type { Said } from '../support/store_process.js';

const program = fileURLToPath(new URL('../support/store_process.js', import.meta.url));
const isRoot = process.getuid?.() === 0;

function folderFor(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'inro-store-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

for (const [name, check] of Object.entries(checks)) {
  test(name, async (t) => {
    const folder = folderFor(t);
    let store = openLmdbStore(folder);
    const reopen = async (): Promise<Store> => {
      await store.close();
      store = openLmdbStore(folder);
      return store;
    };
    await t.notThrowsAsync(check({ store, reopen }));
    await store.close().catch(() => undefined);
  });
}

/** What the process said, and how it ended. */
function run(mode: string, folder: string): { said: Said[]; end: number | string | null } {
  const { stdout, status, signal } = spawnSync(process.execPath, [program, mode, folder], {
    encoding: 'utf8',
  });
  const said = stdout.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Said]));
  return { said, end: status ?? signal };
}

test('nobody else may read what it keeps', (t) => {
  const folder = folderFor(t);
  run('open', folder);
  for (const name of readdirSync(folder)) t.is(statSync(join(folder, name)).mode & 0o077, 0, name);
});

test('what was acknowledged outlives SIGKILL', async (t) => {
  const folder = folderFor(t);
  const leash = process.platform === 'linux' ? ['setpriv', '--pdeathsig', 'KILL'] : [];
  const [file, ...args] = [...leash, process.execPath, program, 'endless', folder];
  const child = spawn(file, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let acknowledged = 0;
  let rest = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) acknowledged = (JSON.parse(line) as Said).acknowledged ?? 0;
    if (acknowledged >= 50) child.kill('SIGKILL');
  });
  await new Promise((resolve) => child.once('close', resolve));
  const { said, end } = run('open', folder);
  t.is(end, 0);
  t.true((said[0]?.revision ?? 0) >= acknowledged);
  t.is(said[0]?.keys?.length, said[0]?.revision);
});

function overwrite(file: string, at: number, bytes: Uint8Array): void {
  const descriptor = openSync(file, 'r+');
  writeSync(descriptor, bytes, 0, bytes.length, at);
  closeSync(descriptor);
}

const damages: Record<string, (file: string, size: number) => void> = {
  'cut inside its head': (file) => truncateSync(file, 100),
  'cut in half': (file, size) => truncateSync(file, size / 2),
  'another file': (file) => overwrite(file, 0, new Uint8Array(16_384).fill(0x5a)),
};
for (const [name, damage] of Object.entries(damages)) {
  test(`a damaged store file says so: ${name}`, async (t) => {
    const folder = folderFor(t);
    const store = openLmdbStore(folder);
    for (let n = 0; n < 100; n++)
      await store.commit({
        checks: [],
        puts: [{ key: `k/${n}`, value: new Uint8Array(3_000) }],
        deletes: [],
      });
    await store.close();
    const file = join(folder, 'data.mdb');
    damage(file, statSync(file).size);
    const { said, end } = run('open', folder);
    t.is(end, 0, 'the process lives to say it');
    t.is(said[0]?.error?.code, 'store_corrupt', JSON.stringify(said));
    t.regex(said[0]?.error?.remedy ?? '', /backup/);
  });
}

labStep(
  'a bit that was flipped: the store is refused in words, or it has all that was in it; never anything else',
  async (t) => {
    const folder = folderFor(t);
    const store = openLmdbStore(folder);
    for (let n = 0; n < 250; n++)
      await store.commit({
        checks: [],
        puts: [{ key: `k/${n}`, value: randomBytes(n % 9 === 0 ? 9_000 : 400) }],
        deletes: n > 150 ? [`k/${n - 100}`] : [],
      });
    await store.close();
    const file = join(folder, 'data.mdb');
    const good = readFileSync(file);
    const [before] = run('whole', folder).said;
    t.is(before?.keys?.[0], 'true');
    const counts = { refused: 0, whole: 0 };
    for (let round = 0; round < 120; round++) {
      const bad = Buffer.from(good);
      // Half of them where pages begin: that is what leads through the file.
      const at =
        round % 2 === 0
          ? randomInt(bad.length)
          : round % 10 === 1
            ? randomInt(2) * 4096 + 24 + randomInt(136)
            : randomInt(bad.length / 4096) * 4096 + randomInt(round % 4 === 1 ? 64 : 200);
      const bit = 1 << randomInt(8);
      bad[at] = (bad[at] as number) ^ bit;
      writeFileSync(file, bad);
      const { said, end } = run('whole', folder);
      const what = `bit ${bit} at ${at} (page ${at >> 12} + ${at & 4095}): ${JSON.stringify(said)}`;
      t.is(end, 0, what);
      if (said[0]?.error === undefined) {
        t.is(said[0]?.digest, before?.digest, what);
        t.deepEqual(said[0]?.keys, ['true'], what);
        counts.whole++;
      } else {
        t.is(said[0].error.code, 'store_corrupt', what);
        t.regex(said[0].error.remedy ?? '', /inro manager restore/);
        counts.refused++;
      }
    }
    t.log(`${counts.refused} refused, ${counts.whole} not concerned`);
    t.true(counts.refused > 20);
  },
);

test('a folder that cannot be used says so', (t) => {
  const folder = folderFor(t);
  writeFileSync(join(folder, 'file'), '');
  refuses(t, () => openLmdbStore(join(folder, 'file', 'store')), 'state_unusable', /cannot be opened/);
  if (!isRoot) {
    chmodSync(folder, 0o500);
    refuses(t, () => openLmdbStore(folder), 'state_unusable', /cannot be opened/);
  }
});

const onFullDisk = isRoot ? test : test.skip;
onFullDisk(
  `a full disk is a clear error, and nothing acknowledged is lost${isRoot ? '' : ' (skipped: needs root)'}`,
  (t) => {
    const folder = folderFor(t);
    const line = 'mount -t tmpfs -o size=2m tmpfs "$1" && exec "$2" "$3" fill "$1"';
    const { stdout, stderr, status } = spawnSync(
      'unshare',
      ['-m', '--propagation', 'private', 'sh', '-c', line, 'sh', folder, process.execPath, program],
      { encoding: 'utf8', timeout: 30_000 },
    );
    t.is(status, 0, stderr);
    const [full, after, reopened] = stdout
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text) as Said);
    t.is(full?.error?.code, 'store_full');
    t.regex(full?.error?.message ?? '', /the disk that holds .* is full; nothing was changed/);
    t.true((after?.acknowledged ?? 0) > 2, 'several fitted');
    t.is(after?.revision, after?.acknowledged);
    t.is(
      after?.keys?.length,
      2 * (after?.acknowledged ?? 0),
      'both keys of each acknowledged commit, and no half of one',
    );
    t.deepEqual(reopened, { keys: after?.keys as string[], revision: after?.revision as number });
    t.is(stderr, '', 'no unhandled rejection');
  },
);
