import { randomBytes } from 'node:crypto';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import {
  isWrapped,
  openWrappingArena,
  readPrivateFile,
  settlePrivateFiles,
  wrapWith,
  writePrivateFile,
} from '../../src/crypto/at_rest.js';
import { openArena } from '../../src/crypto/arena.js';
import { drawKey } from '../../src/crypto/exchange.js';
import { readKeyFile, writeKeyFile } from '../../src/crypto/key_file.js';
import { generateNodeKey } from '../../src/crypto/signing.js';
import { refuses } from '../support/refuses.js';

const arena = openArena(1 << 20);

function place(t: ExecutionContext): (name: string) => string {
  const folder = mkdtempSync(join(tmpdir(), 'inro-at-rest-'));
  t.teardown(() => {
    wrapWith(undefined);
    rmSync(folder, { recursive: true, force: true });
  });
  return (name) => join(folder, name);
}

function aKey(name = 'inro.key', unwraps = false) {
  const wrappingArena = openWrappingArena();
  return { key: drawKey(wrappingArena), arena: wrappingArena, name, unwraps };
}

test.serial('without a wrapping key files lie there as they are', (t) => {
  const path = place(t)('node.key');
  const { privatePem } = generateNodeKey();
  t.is(readPrivateFile(path), undefined);
  t.is(isWrapped(path), undefined);
  writePrivateFile(path, privatePem);
  t.is(readFileSync(path, 'utf8'), privatePem);
  t.is(readPrivateFile(path), privatePem);
  t.is(isWrapped(path), false);
  t.deepEqual(settlePrivateFiles([path]), []);
});

test.serial('with one they are boxes that it alone opens', (t) => {
  const path = place(t)('node.key');
  const wrapping = aKey();
  wrapWith(wrapping);
  const { privatePem } = generateNodeKey();
  writePrivateFile(path, privatePem);
  t.is(statSync(path).mode & 0o7777, 0o600);
  const bytes = readFileSync(path);
  t.is(bytes[0], 6);
  t.is(bytes.length, privatePem.length + 41);
  t.false(bytes.includes('PRIVATE') || bytes.includes(Buffer.from(privatePem.slice(40, 60))));
  t.is(readPrivateFile(path), privatePem);
  t.true(isWrapped(path));

  wrapWith(undefined);
  const missing = refuses(
    t,
    () => readPrivateFile(path),
    'state_unusable',
    /wrapped by a key that was not given/,
  );
  t.regex(missing.remedy ?? '', /--key-credential/);
  wrapWith(aKey('other.key'));
  refuses(t, () => readPrivateFile(path), 'state_unusable', /does not open with other.key/);
  wrapWith(wrapping);
  for (const at of [1, 30, bytes.length - 1]) {
    const flipped = Buffer.from(bytes);
    flipped[at] = (flipped[at] as number) ^ 1;
    writeFileSync(path, flipped);
    refuses(t, () => readPrivateFile(path), 'state_unusable', /does not open/);
  }
  for (const length of [1, 40]) {
    writeFileSync(path, bytes.subarray(0, length));
    refuses(t, () => readPrivateFile(path), 'state_unusable', /does not open/);
  }
});

test.serial('what lies there in clear is wrapped, and overwritten where it was; and back', (t) => {
  const at = place(t);
  const paths = ['node.key', 'data.key', 'not there'].map(at);
  const { privatePem } = generateNodeKey();
  writePrivateFile(at('node.key'), privatePem);
  const dataKey = drawKey(arena);
  writeKeyFile(at('data.key'), dataKey, arena);
  const old = openSync(at('node.key'), 'r');
  t.teardown(() => closeSync(old));
  const wrapping = aKey();
  wrapWith(wrapping);
  t.deepEqual(settlePrivateFiles(paths), paths.slice(0, 2));
  t.deepEqual(settlePrivateFiles(paths), [], 'once');
  const left = Buffer.alloc(1000);
  t.is(readSync(old, left, 0, 1000, 0), privatePem.length);
  t.deepEqual(left, Buffer.alloc(1000), 'zeros');
  t.is(readPrivateFile(at('node.key')), privatePem);
  t.is(statSync(at('data.key')).size, 33 + 41);
  t.deepEqual(Buffer.from(readKeyFile(at('data.key'), arena).expose()), Buffer.from(dataKey.expose()));
  writeKeyFile(at('data.key'), dataKey, arena);
  t.is(readFileSync(at('data.key'))[0], 6, 'a key file is written wrapped, too');

  wrapWith(undefined);
  refuses(
    t,
    () => readKeyFile(at('data.key'), arena),
    'state_unusable',
    /wrapped by a key that was not given/,
  );
  wrapWith({ ...wrapping, unwraps: true });
  t.deepEqual(settlePrivateFiles(paths), paths.slice(0, 2));
  t.is(readFileSync(at('node.key'), 'utf8'), privatePem);
  writePrivateFile(at('node.key'), privatePem);
  t.is(isWrapped(at('node.key')), false);
  wrapWith(undefined);
  t.deepEqual(Buffer.from(readKeyFile(at('data.key'), arena).expose()), Buffer.from(dataKey.expose()));
});

test.serial('files of every size that a key can have', (t) => {
  const path = place(t)('renewed.pem');
  wrapWith(aKey());
  for (const length of [0, 1, 63, 64, 65, 6_400, 100_000]) {
    const text = randomBytes(length)
      .toString('latin1')
      .replace(/[^ -~]/g, '.');
    writePrivateFile(path, text);
    t.is(readPrivateFile(path), text, `${length}`);
  }
  refuses(t, () => writePrivateFile(path, 'x'.repeat(1 << 20)), 'arena_full');
  t.is(readPrivateFile(path)?.length, 100_000, 'what is there stays');
});
