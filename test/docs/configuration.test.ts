/** docs/configuration.md: its examples are taken as they stand, and its tables have every key, and no other. */
import { readFileSync } from 'node:fs';
import test from 'ava';
import { agentKeys, managerKeys } from '../../src/config/keys.js';
import { parseConfig } from '../../src/config/parse.js';
import { inro } from '../support/inro.js';

// The compiled test stands in dist/test/docs.
const page = readFileSync(new URL('../../../docs/configuration.md', import.meta.url), 'utf8');

for (const [who, keys] of [
  ['agent', agentKeys],
  ['manager', managerKeys],
] as const) {
  const section = page.split(/^## /m).find((text) => text.startsWith(`The ${who}'s keys`)) ?? '';
  const known = Object.keys(keys.shape);

  test(`${who}: the example is taken, and has every key`, (t) => {
    const [, example = ''] = /^```yaml\n([^]*?)^```/m.exec(section) ?? [];
    t.deepEqual(Object.keys(parseConfig(example, `${who}.yaml`, keys)), known);
  });

  test(`${who}: each key has a row, and the option that it names exists`, async (t) => {
    const rows = section
      .split('\n')
      .filter((line) => line.startsWith('| `'))
      .map((line) => line.split('|').map((cell) => cell.trim().replaceAll('`', '')));
    t.deepEqual(
      rows.map(([, key]) => key),
      known,
    );
    const { stdout } = await inro([who, 'run', '--help']);
    const options = [...stdout.matchAll(/^ +(--[a-z-]+) /gm)].map(([, option]) => option as string);
    const documented = rows.map(([, , option = '']) => option).filter((option) => option.startsWith('--'));
    // What is done once is no setting.
    t.deepEqual(
      options
        .filter((option) => !['--config', '--takeover', '--unwrap-keys', '--no-autolock'].includes(option))
        .sort(),
      documented.sort(),
    );
  });
}
