import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { makeFolder, makeStateFolder, replaceFile } from '../../src/system/files.js';
import { refuses } from '../support/refuses.js';

function folderFor(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'inro-files-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8);

test('a state folder is made closed, and an empty one is closed', (t) => {
  const folder = folderFor(t);
  makeStateFolder(join(folder, 'a', 'b'));
  t.is(modeOf(join(folder, 'a', 'b')), '700');
  mkdirSync(join(folder, 'empty'));
  chmodSync(join(folder, 'empty'), 0o755);
  makeStateFolder(join(folder, 'empty'));
  t.is(modeOf(join(folder, 'empty')), '700');
});

test('a folder that is used for something else is left as it is', (t) => {
  const folder = folderFor(t);
  writeFileSync(join(folder, 'something'), '');
  chmodSync(folder, 0o1777);
  refuses(t, () => makeStateFolder(folder), 'state_unusable', /open to other users/);
  t.is(modeOf(folder), '777');
});

const asRoot = process.getuid?.() === 0 ? test : test.skip;

asRoot('a folder of another user is refused: he could put his own keys into it', (t) => {
  const folder = folderFor(t);
  chownSync(folder, 65_534, 65_534);
  refuses(t, () => makeStateFolder(folder), 'state_unusable', /belongs to another user/);
});

test('a parent that cannot hold a folder is an error, not an endless loop', (t) => {
  t.throws(() => makeFolder('/proc/nowhere/below', 0o700));
});

test('a file is replaced whole, with its mode, from text or bytes', (t) => {
  const path = join(folderFor(t), 'file');
  replaceFile(path, 'a longer text', 0o644);
  replaceFile(path, Uint8Array.of(1, 2, 3), 0o600);
  t.is(statSync(path).size, 3);
  t.is(modeOf(path), '600');
});
