/**
 * Makes inro_VERSION_ARCHITECTURE.deb: the program, its packages, its native addon and the Node that runs this script, so that
 * installing it needs nothing from a network. Needs dpkg-deb and what the set-up needs; no root. Says the file's path.
 *
 *   npm run package [-- --out DIR] [--version VERSION]
 *
 * The same checkout, Node and SOURCE_DATE_EPOCH (otherwise the time of the last commit) give the same bytes.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { writeControl } from './package/control.mjs';
import { platform } from './package/platform.mjs';
import { ageAll, layOut } from './package/tree.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

process.umask(0o022);
try {
  process.stdout.write(`${await build(readOptions())}\n`);
} catch (error) {
  process.stderr.write(`inro package: ${error.message}\n`);
  process.exitCode = 1;
}

function readOptions() {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const { values } = parseArgs({
    options: {
      out: { type: 'string', default: join(root, 'packages') },
      version: { type: 'string', default: version },
    },
  });
  // deb-version(7), without epoch and revision, as far as npm has it too.
  if (!/^[0-9][0-9A-Za-z.+~-]*$/.test(values.version)) throw new Error(`${values.version} is no version`);
  return { out: resolve(values.out), version: values.version };
}

/** @returns the package's path */
async function build({ out, version }) {
  const { architecture } = platform();
  // To npm 1.0.0-rc.1 is before 1.0.0, to dpkg 1.0.0~rc.1 is.
  const debVersion = version.replaceAll('-', '~');
  const madeAt = sourceDate();
  const stage = mkdtempSync(join(tmpdir(), 'inro-package-'));
  try {
    const tree = join(stage, 'tree');
    await layOut(root, tree, version);
    writeControl(tree, { version: debVersion, architecture });
    ageAll(tree, madeAt);
    mkdirSync(out, { recursive: true });
    const target = join(out, `inro_${debVersion}_${architecture}.deb`);
    run('dpkg-deb', ['--build', '--root-owner-group', '-Zzstd', tree, join(stage, 'made.deb')], {
      env: { ...process.env, SOURCE_DATE_EPOCH: String(madeAt) },
    });
    // Into the folder first, under another name: it may be on another file system.
    run('cp', [join(stage, 'made.deb'), `${target}.new`]);
    renameSync(`${target}.new`, target);
    return target;
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
}

/** In seconds (reproducible-builds.org/specs/source-date-epoch). */
function sourceDate() {
  const given = process.env.SOURCE_DATE_EPOCH;
  if (given !== undefined && /^[0-9]+$/.test(given)) return Number(given);
  try {
    return Number(run('git', ['-C', root, 'log', '-1', '--format=%ct']).trim());
  } catch {
    return Math.floor(Date.now() / 1000); // a copy without its history
  }
}

function run(program, args, options = {}) {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], ...options });
}
