/**
 * Which Debian packages have the libraries that programs ask for, and from which version on. It is what dpkg-shlibdeps finds
 * out, from the same lists (deb-symbols(5)), without the package dpkg-dev. readelf comes with g++.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** readelf has a line for every four symbols of Node. */
const maxOutputBytes = 64 * 1024 * 1024;

/** @returns {string[]} as in Depends: `libc6 (>= 2.34)`. @throws when a library is in no package. */
export function libraryPackages(programs) {
  /** The highest version for each package; '' where any will do. */
  const needed = new Map();
  for (const program of programs) {
    const paths = libraryPaths(program);
    for (const [library, symbolVersions] of neededBy(program)) {
      const owner = ownerOf(library, paths);
      const symbols = symbolsOf(owner, library);
      const versions = symbolVersions.map((name) => symbols.get(name) ?? '');
      const name = owner.split(':')[0];
      needed.set(name, [...versions, needed.get(name) ?? ''].reduce(newer));
    }
  }
  return [...needed].map(([name, version]) => (version === '' ? name : `${name} (>= ${version})`)).sort();
}

/** Each library and the symbol versions (GLIBC_2.34) that are asked of it. */
function neededBy(program) {
  const text = ask('readelf', ['--wide', '--dynamic', '--version-info', program]);
  const libraries = new Map([...text.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name]) => [name, []]));
  let library;
  for (const [, file, version] of text.matchAll(/ File: (\S+)| Name: (\S+)  Flags:/g)) {
    if (file !== undefined) library = file;
    else libraries.get(library)?.push(version);
  }
  return libraries;
}

function libraryPaths(program) {
  const lines = ask('ldd', [program]).matchAll(/^\s*(?:(\S+) => )?(\/\S+) \(0x/gm);
  return new Map([...lines].map(([, name, path]) => [name ?? path.split('/').at(-1), path]));
}

/** @returns the package, with its architecture: libc6:amd64. */
function ownerOf(library, paths) {
  const path = paths.get(library);
  if (path === undefined) throw new Error(`${library} is asked for, and is not on this host`);
  // dpkg knows a file by the name that its package gives it: /lib and /usr/lib are one folder on a host.
  for (const name of [path, `/usr${path}`, path.replace(/^\/usr/, '')]) {
    try {
      return ask('dpkg-query', ['--search', name]).split(': ')[0];
    } catch {
      // Not by this name.
    }
  }
  throw new Error(`${path} belongs to no package`);
}

/** From which version of the package on the library has a symbol version: GLIBC_2.34 -> 2.34. */
function symbolsOf(owner, library) {
  const list = ask('dpkg-query', ['--control-path', owner, 'symbols']).trim();
  const text = list === '' ? '' : readFileSync(list, 'utf8');
  const [, section = ''] = text.split(new RegExp(`^${escaped(library)} .*$`, 'm'));
  const own = section.split(/^(?=\S)(?![|*])/m)[0];
  return new Map([...own.matchAll(/^ (\S+)@\1 (\S+)/gm)].map(([, name, version]) => [name, version]));
}

function newer(a, b) {
  if (a === '' || b === '') return a === '' ? b : a;
  try {
    ask('dpkg', ['--compare-versions', a, 'ge', b]);
    return a;
  } catch {
    return b;
  }
}

function escaped(text) {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

function ask(program, args) {
  const stdio = ['ignore', 'pipe', 'pipe'];
  return execFileSync(program, args, { encoding: 'utf8', stdio, maxBuffer: maxOutputBytes });
}
