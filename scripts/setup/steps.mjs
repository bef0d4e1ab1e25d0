/**
 * What a set-up does, in order. A step is {name, command, key, missing, finish, compiles, says, remedy}:
 * key() is a hash over all that its result depends on, missing() names a result that is not there,
 * finish() completes a success and gives back what is wrong, if anything.
 */
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, readFileSync, readdirSync, rmSync, rmdirSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { buildArguments } from './addon.mjs';

/** @param root the checkout */
export function steps(root) {
  const at = (...path) => join(root, ...path);
  const node = process.execPath;
  const program = (path) => [node, at('node_modules', path)];
  const version = (name) =>
    textOf(at('node_modules', name, 'package.json')).match(/"version": *"([^"]*)"/)?.[1] ?? 'none';
  const host = [process.version, process.platform, process.arch].join(' ');
  const protos = () => filesBelow(at('src/proto'), ['gen']).filter((path) => path.endsWith('.proto'));
  const sources = () =>
    ['src', 'test', 'bench']
      .flatMap((tree) => filesBelow(at(tree)))
      .filter((path) => /(?<!\.d)\.ts$/.test(path));
  const generated = () =>
    protos().map((path) =>
      at('src/proto/gen', relative(at('src/proto'), path).replace(/\.proto$/, '_pb.ts')),
    );
  const outputOf = (source) => at('dist', relative(root, source).replace(/\.ts$/, '.js'));
  const hash = (facts, files) => hashOf(root, facts, files);
  const firstAbsent = (paths) => {
    const absent = paths.find((path) => !existsSync(path));
    return absent === undefined ? undefined : `${relative(root, absent)} is missing`;
  };

  const install = {
    name: 'install',
    command: [
      ...npm(),
      'ci',
      '--ignore-scripts',
      '--include=dev',
      '--include=optional',
      '--loglevel=warn',
      '--color=false',
    ],
    key: () => hash([host], [at('package-lock.json')]),
    missing: () => firstAbsent([at('node_modules/.package-lock.json')]),
    says: 'npm ci',
    remedy: 'Packages come from the registry that npm is configured for: is it reachable?',
  };

  const generate = {
    name: 'generate',
    command: [...program('@bufbuild/buf/bin/buf'), 'generate'],
    key: () =>
      hash(
        [version('@bufbuild/buf'), version('@bufbuild/protoc-gen-es')],
        [...protos(), at('buf.yaml'), at('buf.gen.yaml')],
      ),
    missing: () => firstAbsent(generated()),
    finish: () => {
      const wanted = new Set(generated());
      removeOthers(at('src/proto/gen'), (path) => wanted.has(path));
    },
    says: 'buf generate',
    remedy: 'Mend src/proto and try again.',
  };

  const compile = {
    name: 'compile',
    command: [...program('typescript/bin/tsc'), '-p', at('tsconfig.json'), '--pretty', 'false'],
    key: () =>
      hash(
        [version('typescript')],
        [...sources(), ...['tsconfig.json', 'package.json', 'package-lock.json'].map((path) => at(path))],
      ),
    missing: () => firstAbsent(sources().map(outputOf)),
    finish: () => {
      const wanted = new Set(sources().map(outputOf));
      removeOthers(
        at('dist'),
        (path) => !/\.js(\.map)?$/.test(path) || wanted.has(path.replace(/\.map$/, '')),
      );
      const bin = at('dist/src/cli/main.js');
      if (existsSync(bin)) chmodSync(bin, 0o755);
    },
    says: 'tsc',
    remedy: 'Mend the errors above and try again.',
  };

  const addon = {
    name: 'addon',
    compiles: true,
    command: [...program('node-gyp/bin/node-gyp.js'), ...buildArguments(at('native'))],
    key: () =>
      hash(
        [host, version('node-gyp'), version('node-addon-api')],
        filesBelow(at('native'), ['build', 'prebuilds']),
      ),
    missing: () => firstAbsent([at('native/build/Release/inro.node')]),
    says: 'node-gyp rebuild',
    remedy: 'Its output is above.',
  };

  return [
    install,
    ...(existsSync(at('native/binding.gyp')) ? [addon] : []),
    ...(protos().length > 0 ? [generate] : []),
    compile,
  ];
}

/** npm as it runs us, or the one on the PATH. */
function npm() {
  const running = process.env.npm_execpath ?? '';
  return running.endsWith('npm-cli.js') ? [process.execPath, running] : ['npm'];
}

/** A hash over the facts and over path and content of each file. Contents, because git sets times as it likes. */
function hashOf(root, facts, files) {
  const hash = createHash('sha256');
  for (const fact of facts) hash.update(`${fact}\n`);
  for (const path of files.toSorted(byName)) {
    const content = existsSync(path) ? readFileSync(path) : Buffer.alloc(0);
    hash.update(`${relative(root, path)} ${content.length}\n`).update(content);
  }
  return hash.digest('hex');
}

function byName(a, b) {
  return a < b ? -1 : 1;
}

/** All files below a directory, without its entries named in `except` and without names that begin with a dot. */
function filesBelow(directory, except = []) {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    if (entry.name.startsWith('.') || except.includes(entry.name)) return [];
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return filesBelow(path);
    return entry.isFile() || statSync(path, { throwIfNoEntry: false })?.isFile() ? [path] : [];
  });
}

/** Results whose source is gone, and the directories that become empty. */
function removeOthers(directory, keep) {
  for (const path of filesBelow(directory)) {
    if (keep(path)) continue;
    rmSync(path);
    for (
      let parent = dirname(path);
      parent !== directory && readdirSync(parent).length === 0;
      parent = dirname(parent)
    )
      rmdirSync(parent);
  }
}

function textOf(path) {
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}
