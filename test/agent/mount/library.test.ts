import test from 'ava';
import { loadFuseNative, type Host } from '../../../src/agent/mount/library.js';

const host: Host = { platform: 'linux', arch: 'x64', openDevice: () => {} };

function fails(code: string): () => never {
  return () => {
    throw Object.assign(new Error(`${code}: open /dev/fuse`), { code });
  };
}

test('it loads without a system library, again and again', (t) => {
  t.is(typeof loadFuseNative(host), 'function');
  t.is(typeof loadFuseNative(host), 'function');
});

test('a machine without a library is told so', (t) => {
  for (const [platform, arch] of [
    ['linux', 'arm64'],
    ['darwin', 'x64'],
    ['win32', 'x64'],
  ] as const) {
    const error = t.throws(() => loadFuseNative({ ...host, platform, arch }), {
      name: 'InroError',
      code: 'not_supported',
    });
    t.true(error.message.includes(`${platform} ${arch}`));
  }
});

test('a missing or forbidden /dev/fuse says what to do', (t) => {
  const remedy = (openDevice: () => never) => {
    const error = t.throws(() => loadFuseNative({ ...host, openDevice }), {
      name: 'InroError',
      code: 'no_fuse',
    });
    return (error as { remedy?: string }).remedy;
  };
  t.regex(remedy(fails('ENOENT')) ?? '', /modprobe fuse/);
  t.regex(remedy(fails('ENXIO')) ?? '', /modprobe fuse/);
  t.regex(remedy(fails('EACCES')) ?? '', /root/);
});
