/** Keys of a manager's folder under its unlock key, whatever moment a crash comes at. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { isWrapped, readPrivateFile, wrapWith } from '../../src/crypto/at_rest.js';
import { drawUnlockKey } from '../../src/crypto/unlock_key.js';
import type { Plaintext } from '../../src/crypto/plaintext.js';
import { Autolock } from '../../src/manager/autolock.js';

const contents = { 'ca.key': 'the key of the CA', 'manager.key': 'its own key', 'data.key': '\u0001data' };
const names = Object.keys(contents);

function place(t: ExecutionContext) {
  const root = mkdtempSync(join(tmpdir(), 'inro-autolock-'));
  const folder = join(root, 'manager');
  mkdirSync(folder);
  for (const [name, text] of Object.entries(contents))
    writeFileSync(join(folder, name), text, { mode: 0o600 });
  t.teardown(() => {
    wrapWith(undefined);
    rmSync(root, { recursive: true, force: true });
  });
  return { root, folder };
}

/** A copy for another process: its own arena. */
function handed(key: Plaintext, to: Autolock): Plaintext {
  const copy = to.arena.take(32);
  copy.expose().set(key.expose());
  return copy;
}

function opened(folder: string, key: Plaintext): Autolock {
  const autolock = new Autolock(folder, false);
  autolock.open(handed(key, autolock));
  return autolock;
}

const readAll = (folder: string) =>
  Object.fromEntries(names.map((name) => [name, readPrivateFile(join(folder, name))]));
const bytesIn = (folder: string) =>
  Buffer.concat(readdirSync(folder).map((name) => readFileSync(join(folder, name))));

test.serial('nothing is wrapped before somebody has the unlock key; then everything is', (t) => {
  const { folder } = place(t);
  const off = new Autolock(folder, false);
  t.is(off.state, 'off');
  t.throws(() => off.unlockKey, { code: 'not_supported' });
  const autolock = new Autolock(folder, true);
  t.is(autolock.state, 'wanted');
  t.false(autolock.isLocked);
  t.deepEqual(readAll(folder), contents);
  const key = drawUnlockKey(autolock.arena);
  autolock.lockWith(key);
  t.is(autolock.state, 'on');
  t.false(autolock.isLocked);
  t.deepEqual(readAll(folder), contents);
  for (const name of names) t.true(isWrapped(join(folder, name)));
  for (const text of Object.values(contents)) t.is(bytesIn(folder).indexOf(text), -1);
  t.is(bytesIn(folder).indexOf(Buffer.from(key.expose())), -1);

  const successor = new Autolock(folder, false);
  t.true(successor.isLocked);
  t.is(successor.state, 'on');
  const wrong = drawUnlockKey(successor.arena);
  t.throws(() => successor.open(wrong), { code: 'bad_input', message: /does not open this manager/ });
  t.true(successor.isLocked);
  successor.open(handed(key, successor));
  t.false(successor.isLocked);
  t.deepEqual(readAll(folder), contents);
  successor.turnOff();
  t.is(successor.state, 'off');
  t.false(existsSync(join(folder, 'wrapping.key')));
  wrapWith(undefined);
  t.deepEqual(readAll(folder), contents);
});

test.serial(
  'another unlock key: the former one opens nothing that is there, nor anything written since',
  (t) => {
    const { root, folder } = place(t);
    const first = new Autolock(folder, true);
    const former = drawUnlockKey(first.arena);
    first.lockWith(former);
    const keptFormer = handed(former, first);
    const old = join(root, 'old');
    cpSync(folder, old, { recursive: true });
    const next = drawUnlockKey(first.arena);
    first.lockWith(next);
    t.true(former.wiped);
    t.deepEqual(readAll(folder), contents);
    t.throws(() => opened(folder, keptFormer), { code: 'bad_input' });
    t.is(opened(folder, next).state, 'on');
    // Yesterday's wrapping.key beside today's files.
    cpSync(join(old, 'wrapping.key'), join(folder, 'wrapping.key'));
    opened(folder, keptFormer);
    for (const name of names)
      t.throws(() => readPrivateFile(join(folder, name)), {
        code: 'state_unusable',
        message: /does not open with the unlock key/,
      });
  },
);

test.serial('a crash at any file of a rotation leaves one key that opens all of it', (t) => {
  const { root, folder } = place(t);
  const first = new Autolock(folder, true);
  first.lockWith(drawUnlockKey(first.arena));
  const former = handed(first.unlockKey, first);
  const before = join(root, 'before');
  cpSync(folder, before, { recursive: true });
  const next = drawUnlockKey(first.arena);
  const both = join(root, 'both');
  // What the folder is once the new wrapping.key stands there, and nothing else is done.
  const real = new Autolock(folder, false);
  real.open(handed(former, real));
  const cut = new Error('cut off');
  t.throws(
    () =>
      real.lockWith(handed(next, real), (step) => {
        if (step === 'keys written') {
          cpSync(folder, both, { recursive: true });
          throw cut;
        }
      }),
    { is: cut },
  );
  for (let done = 0; done <= names.length; done++) {
    const at = join(root, `cut-${done}`);
    cpSync(both, at, { recursive: true });
    const whole = join(root, `whole-${done}`);
    cpSync(both, whole, { recursive: true });
    opened(whole, next);
    for (const name of names.slice(0, done)) cpSync(join(whole, name), join(at, name));
    // The wrapping key that `whole` has is the one that `both` names.
    opened(at, next);
    t.deepEqual(readAll(at), contents, `after ${done} files`);
    t.throws(() => opened(at, former), { code: 'bad_input' });
    opened(at, next);
    t.deepEqual(readAll(at), contents);
  }
  opened(before, former);
  t.deepEqual(readAll(before), contents);
});

test.serial('a damaged wrapping.key is said', (t) => {
  const { folder } = place(t);
  const autolock = new Autolock(folder, true);
  const key = drawUnlockKey(autolock.arena);
  autolock.lockWith(key);
  const path = join(folder, 'wrapping.key');
  const good = readFileSync(path);
  for (const bad of [Buffer.alloc(0), good.subarray(0, 20), Buffer.concat([good.subarray(1)])]) {
    writeFileSync(path, bad);
    const error = t.throws(() => opened(folder, key));
    t.regex((error as Error & { code: string }).code, /^(state_unusable|bad_input)$/);
  }
  writeFileSync(path, good);
  t.notThrows(() => opened(folder, key));
});
