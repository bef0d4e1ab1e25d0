import test from 'ava';
import type { PublishedFile } from '../../../src/agent/mount/driver.js';
import { Tree } from '../../../src/agent/mount/tree.js';
import type { DirectoryNode, FileNode, TreeNode } from '../../../src/agent/mount/tree_nodes.js';
import { fakePlaintext } from '../../support/fake_arena.js';

function file(target: string, text = target, more: Partial<PublishedFile> = {}): PublishedFile {
  return {
    target,
    source: target,
    uid: 0,
    gid: 0,
    mode: 0o444,
    modifiedMs: 1_000,
    mmap: false,
    value: fakePlaintext(text),
    ...more,
  };
}

function newTree() {
  const clock = { ms: 5_000 };
  let lastIno = 1;
  const tree = new Tree({
    owner: { uid: 7, gid: 8 },
    now: () => clock.ms,
    boottimeMs: () => clock.ms,
    sink: { newIno: () => ++lastIno, commit: () => undefined },
    rootIno: 1,
  });
  const publish = (taskId: string, serviceName: string, number: number, files: PublishedFile[]) =>
    tree.publish({ taskId, serviceId: `id-${serviceName}`, serviceName, number, graceMs: 10_000, files });
  return { tree, clock, publish };
}

const names = (node: TreeNode | undefined): string[] | undefined =>
  node?.kind === 'directory' ? [...node.entries.keys()] : undefined;
const text = (node: TreeNode | undefined): string | undefined =>
  node?.kind === 'file' ? Buffer.from(node.value.expose()).toString() : undefined;
const facts = (node: TreeNode | undefined) =>
  node && { mode: node.mode.toString(8), uid: node.uid, nlink: node.nlink };

test('an empty tree is a closed root with .task', (t) => {
  const { tree } = newTree();
  t.deepEqual(facts(tree.resolve('/')), { mode: '40700', uid: 7, nlink: 3 });
  t.deepEqual(names(tree.resolve('/')), ['.task']);
  t.deepEqual(facts(tree.resolve('/.task')), { mode: '40555', uid: 7, nlink: 2 });
  t.is(tree.resolve('/nothing'), undefined);
  t.is(tree.resolve('/.task/nothing/deeper'), undefined);
});

test('a service is shown flat, as a set, and below its task', (t) => {
  const { tree, publish } = newTree();
  publish('t1', 'web', 3, [
    file('key', 'k', { uid: 33, gid: 34, mode: 0o400, modifiedMs: 77 }),
    file('cert', 'certificate'),
  ]);
  for (const place of ['/web', '/.task/t1']) {
    t.deepEqual(names(tree.resolve(place)), ['key', 'cert', '..data', '..3'], place);
    t.deepEqual(facts(tree.resolve(place)), { mode: '40555', uid: 7, nlink: 3 });
    t.like(tree.resolve(`${place}/..data`), { kind: 'link', target: '..3', size: 3, mode: 0o120777 });
    t.deepEqual(names(tree.resolve(`${place}/..3`)), ['key', 'cert']);
    t.is(text(tree.resolve(`${place}/..3/cert`)), 'certificate');
    t.like(tree.resolve(`${place}/key`), {
      mode: 0o100400,
      uid: 33,
      gid: 34,
      size: 1,
      modifiedMs: 77,
      nlink: 1,
    });
  }
  t.is(tree.resolve('/web/key/deeper'), undefined);
});

test('a directory tells the time of its last change, a file that of its version', (t) => {
  const { tree, clock, publish } = newTree();
  publish('t1', 'web', 1, [file('a')]);
  clock.ms = 6_000;
  publish('t1', 'web', 2, [file('a')]);
  t.is(tree.resolve('/web')?.modifiedMs, 6_000);
  t.is(tree.resolve('/web/..2')?.modifiedMs, 6_000);
  t.is(tree.resolve('/web/a')?.modifiedMs, 1_000);
  t.is(tree.resolve('/.task')?.modifiedMs, 5_000);
  clock.ms = 7_000;
  tree.withdraw('t1');
  t.is(tree.resolve('/web')?.modifiedMs, 7_000);
  t.is(tree.resolve('/.task')?.modifiedMs, 7_000);
});

test('a new generation takes the place of the old one, whose nodes keep their value', (t) => {
  const { tree, publish } = newTree();
  const kept = file('kept');
  publish('t1', 'web', 1, [file('changed', 'old'), kept, file('gone')]);
  const before = tree.resolve('/web/changed') as FileNode;
  const keptIno = tree.resolve('/web/kept')?.ino;
  const listed = (tree.resolve('/web') as DirectoryNode).entries;
  publish('t1', 'web', 2, [file('changed', 'new'), kept]);

  t.deepEqual(names(tree.resolve('/web')), ['changed', 'kept', '..data', '..2']);
  t.is(tree.resolve('/web/..1'), undefined);
  t.is(text(tree.resolve('/web/changed')), 'new');
  t.not(tree.resolve('/web/changed')?.ino, before.ino);
  t.is(tree.resolve('/web/kept')?.ino, keptIno);
  t.is(text(before), 'old');
  t.deepEqual(
    [...listed.keys()],
    ['changed', 'kept', 'gone', '..data', '..1'],
    'a listing begun before is whole',
  );
});

test('the newest published task is shown, whatever is published later for an older one', (t) => {
  const { tree, publish } = newTree();
  publish('old', 'web', 1, [file('a', 'old 1')]);
  publish('new', 'web', 1, [file('a', 'new 1')]);
  publish('old', 'web', 2, [file('a', 'old 2')]);
  t.is(text(tree.resolve('/web/a')), 'new 1');
  t.is(text(tree.resolve('/.task/old/a')), 'old 2');

  tree.withdraw('new');
  t.is(text(tree.resolve('/web/a')), 'old 2');
  t.deepEqual(names(tree.resolve('/.task')), ['old']);

  tree.withdraw('old');
  t.deepEqual(names(tree.resolve('/web')), []);
  t.is(tree.resolve('/web')?.nlink, 2);
});

test('withdrawing an older task changes nothing of what the service shows', (t) => {
  const { tree, clock, publish } = newTree();
  publish('old', 'web', 1, [file('a', 'old')]);
  publish('new', 'web', 1, [file('a', 'new')]);
  clock.ms = 9_000;
  tree.withdraw('old');
  t.is(text(tree.resolve('/web/a')), 'new');
  t.is(tree.resolve('/web')?.modifiedMs, 5_000);
  tree.withdraw('never published');
});

test("a service's directory keeps its inode, is there before a task, and fills again", (t) => {
  const { tree, publish } = newTree();
  tree.openService('id-web', 'web');
  const ino = tree.resolve('/web')?.ino;
  tree.openService('id-web', 'web');
  t.deepEqual(names(tree.resolve('/web')), []);
  publish('t1', 'web', 1, [file('a')]);
  tree.withdraw('t1');
  publish('t2', 'web', 1, [file('a', 'again')]);
  t.is(tree.resolve('/web')?.ino, ino);
  t.is(text(tree.resolve('/web/a')), 'again');
  t.is(tree.resolve('/')?.nlink, 4);
});

test('a service made anew under an old name is another directory, and keeps the name', (t) => {
  const { tree, publish } = newTree();
  publish('t1', 'web', 1, [file('a', 'first')]);
  const first = tree.resolve('/web') as DirectoryNode;
  tree.openService('id-second', 'web');
  t.not(tree.resolve('/web')?.ino, first.ino);
  t.deepEqual(names(tree.resolve('/web')), []);
  publish('t1', 'web', 2, [file('a', 'first, rotated')]);
  tree.openService('id-web', 'web');
  t.deepEqual(names(tree.resolve('/web')), [], 'the older service does not take the name back');
  t.is(
    text(first.entries.get('a')),
    'first, rotated',
    'who holds the old directory still sees its own service',
  );
});

test('no inode number is given twice', (t) => {
  const { tree, publish } = newTree();
  const seen = new Map<number, TreeNode>();
  const walk = (node: TreeNode): void => {
    const other = seen.get(node.ino);
    const same =
      other === undefined ||
      other === node ||
      (other.kind === 'file' && node.kind === 'file' && other.value === node.value);
    t.true(same, `inode ${node.ino}`);
    seen.set(node.ino, node);
    if (node.kind === 'directory') node.entries.forEach(walk);
  };
  for (let round = 1; round <= 20; round++) {
    publish('t1', 'web', round, [file('a'), file('b')]);
    publish(`t-${round}`, 'db', round, [file('a')]);
    if (round % 3 === 0) tree.withdraw(`t-${round - 1}`);
    walk(tree.resolve('/') as TreeNode);
  }
});

test('sizes are those of the values, also after the wipe', (t) => {
  const { tree, publish } = newTree();
  const secret = file('a', 'x'.repeat(300));
  publish('t1', 'web', 1, [secret, file('empty', '')]);
  secret.value.wipe();
  t.is(tree.resolve('/web/a')?.size, 300);
  t.is(tree.resolve('/web/empty')?.size, 0);
});
