import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { openArena } from '../../src/crypto/arena.js';
import { drawKey } from '../../src/crypto/exchange.js';
import { readKeyFile, writeKeyFile } from '../../src/crypto/key_file.js';
import { refuses } from '../support/refuses.js';

const arena = openArena(1 << 20);

function keyPath(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'inro-keys-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, 'data.key');
}

test('a key comes back from its file', (t) => {
  const path = keyPath(t);
  const key = drawKey(arena);
  writeKeyFile(path, key, arena);
  t.deepEqual(Buffer.from(readKeyFile(path, arena).expose()), Buffer.from(key.expose()));
  t.is(statSync(path).size, 33);
  t.is(readFileSync(path)[0], 1, 'format 1');
});

test('nobody else may read it, whatever the umask', (t) => {
  const path = keyPath(t);
  const umask = process.umask(0);
  t.teardown(() => process.umask(umask));
  writeKeyFile(path, drawKey(arena), arena);
  t.is(statSync(path).mode & 0o7777, 0o600);
});

test('a file that a cut-off write left behind does not lend its mode or its rest', (t) => {
  const path = keyPath(t);
  writeFileSync(`${path}.new`, randomBytes(100), { mode: 0o644 });
  const key = drawKey(arena);
  writeKeyFile(path, key, arena);
  t.is(statSync(path).mode & 0o7777, 0o600);
  t.deepEqual(Buffer.from(readKeyFile(path, arena).expose()), Buffer.from(key.expose()));
});

test('it is replaced in one step', (t) => {
  const path = keyPath(t);
  const [first, second] = [drawKey(arena), drawKey(arena)];
  writeKeyFile(path, first, arena);
  const { ino } = statSync(path);
  writeKeyFile(path, second, arena);
  t.not(statSync(path).ino, ino);
  t.false(existsSync(`${path}.new`));
  t.deepEqual(Buffer.from(readKeyFile(path, arena).expose()), Buffer.from(second.expose()));
});

test('a file that is missing, cut, too long or of another format says so, by its name', (t) => {
  const path = keyPath(t);
  refuses(t, () => readKeyFile(path, arena), 'state_unusable', /data\.key cannot be read: ENOENT/);
  const key = randomBytes(32);
  const bad: Record<string, Buffer> = {
    empty: Buffer.alloc(0),
    'format alone': Buffer.of(1),
    cut: Buffer.concat([Buffer.of(1), key.subarray(1)]),
    'too long': Buffer.concat([Buffer.of(1), key, Buffer.of(0)]),
    'format 0': Buffer.concat([Buffer.of(0), key]),
    'format 2': Buffer.concat([Buffer.of(2), key]),
    text: Buffer.from(key.toString('hex')),
    endless: randomBytes(100_000),
  };
  for (const [name, content] of Object.entries(bad)) {
    writeFileSync(path, content);
    const error = refuses(t, () => readKeyFile(path, arena), 'state_unusable', /data\.key is not a key file/);
    t.regex(error.remedy ?? '', /backup/, name);
  }
  rmSync(path);
  refuses(t, () => readKeyFile(join(path, '..'), arena), 'state_unusable', /cannot be read: EISDIR/);
});

test('neither way leaves a piece of the arena behind', (t) => {
  const own = openArena(1 << 16);
  const path = keyPath(t);
  const key = drawKey(own);
  writeKeyFile(path, key, own);
  readKeyFile(path, own).wipe();
  writeFileSync(path, 'damaged');
  refuses(t, () => readKeyFile(path, own), 'state_unusable');
  t.throws(() => writeKeyFile(join(path, 'no', 'folder'), key, own), { code: 'state_unusable' });
  t.is(own.facts().pieces, 1);
});
