/**
 * Runs when the package is installed, unless npm is told --ignore-scripts: builds the native addon where the one that
 * the package brings does not load. In a checkout the set-up builds it.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { buildArguments } from './setup/addon.mjs';
import { missingTools } from './setup/host.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const inCheckout = existsSync(join(root, 'scripts/setup.mjs'));

process.exitCode = inCheckout ? 0 : await main();

async function main() {
  const { addon } = await import(pathToFileURL(join(root, 'dist/src/system/addon.js')).href);
  const unloaded = reasonNotTo(addon);
  if (unloaded === undefined) return 0;
  say(`${unloaded}: building it`);
  const problem = missingTools() ?? build() ?? reasonNotTo(addon);
  if (problem === undefined) return 0;
  say(problem);
  return 1;
}

/** Why the addon does not load; undefined when it does. */
function reasonNotTo(load) {
  try {
    load();
    return undefined;
  } catch (error) {
    return error.message;
  }
}

/** What went wrong, if anything. npm has its node-gyp at hand for the scripts of packages. */
function build() {
  const npms = process.env.npm_config_node_gyp;
  const [program, ...args] = npms === undefined ? ['node-gyp'] : [process.execPath, npms];
  const native = join(root, 'native');
  const { status, error } = spawnSync(program, [...args, ...buildArguments(native)], {
    cwd: root,
    stdio: 'inherit',
  });
  if (error !== undefined) return `node-gyp does not start: ${error.message}`;
  return status === 0 ? undefined : `node-gyp rebuild failed with exit code ${status}; its output is above`;
}

function say(words) {
  process.stderr.write(`inro install: ${words}\n`);
}
