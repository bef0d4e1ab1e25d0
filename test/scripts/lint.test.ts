/** What lint must find, and what it must leave alone: each row is a file of its own in a small checkout. */
import test from 'ava';
import { checkout } from './checkout.js';

const sources = {
  'src/model/task.ts': 'export interface Task {\n  id: string;\n}\nexport const one = 1;\n',
  'src/agent/vault.ts': 'export interface Vault {\n  size: number;\n}\nexport const two = 2;\n',
};

/** file, content, the rule that must object (once). */
const bad: [string, string, string][] = [
  [
    'src/model/up.ts',
    "import { two } from '../agent/vault.js';\nexport const up = two;\n",
    'no-restricted-imports',
  ],
  [
    'src/model/type.ts',
    "import type { Vault } from '../agent/vault.js';\nexport type V = Vault;\n",
    'no-restricted-imports',
  ],
  ['src/model/again.ts', "export type { Vault } from '../agent/vault.js';\n", 'no-restricted-imports'],
  ['src/model/round.ts', "export * from './../agent/vault.js';\n", 'no-restricted-imports'],
  ['src/model/late.ts', "export const late = import('../agent/vault.js');\n", 'no-restricted-imports'],
  ['src/model/inline.ts', "export type V = import('../agent/vault.js').Vault;\n", 'no-import-type'],
  [
    'src/model/package.ts',
    "import { z } from 'zod';\nexport const schema = z.string();\n",
    'no-restricted-imports',
  ],
  [
    'src/manager/side.ts',
    "import type { Vault } from '../agent/vault.js';\nexport type V = Vault;\n",
    'no-restricted-imports',
  ],
  ['src/agent/mount/deep.ts', "export { s } from '../../store/s.js';\n", 'no-restricted-imports'],
  ['src/rpc/s.ts', "export { s } from '../store/s.js';\n", 'no-restricted-imports'],
  ['src/store/clock.ts', "export { s } from '../system/s.js';\n", 'no-restricted-imports'],
  ['src/cli/t.ts', "export { t } from '../../test/support/t.js';\n", 'no-restricted-imports'],
  ['src/agent/nacl.ts', "export { default } from 'tweetnacl';\n", 'no-restricted-imports'],
  [
    'src/rpc/x509.ts',
    "import type { X509Certificate } from 'node:crypto';\nexport type C = X509Certificate;\n",
    'no-restricted-imports',
  ],
  ['src/cli/forge.ts', "export { default } from 'node-forge';\n", 'no-restricted-imports'],
  ['src/crypto/forge.ts', "export { default } from 'node-forge';\n", 'no-restricted-imports'],
  ['src/manager/web.ts', 'export const id = crypto.randomUUID();\n', 'no-restricted-globals'],
  ['src/agent/now.ts', 'export const now = Date.now();\n', 'no-restricted-properties'],
  ['src/agent/date.ts', 'export const now = new Date();\n', 'no-ambient-date'],
  ['src/agent/dice.ts', 'export const dice = Math.random();\n', 'no-restricted-properties'],
  ['src/agent/later.ts', 'setTimeout(() => {}, 1);\n', 'no-restricted-globals'],
  ['src/agent/often.ts', 'globalThis.setInterval(() => {}, 1);\n', 'no-restricted-globals'],
  [
    'src/agent/timers.ts',
    "export { setTimeout as sleep } from 'node:timers/promises';\n",
    'no-restricted-imports',
  ],
  ['src/agent/say.ts', "console.log('said');\n", 'no-console'],
  ['src/agent/any.ts', 'export const it: any = 1;\n', 'no-explicit-any'],
  ['src/agent/floating.ts', 'const f = async (): Promise<void> => {};\nf();\n', 'no-floating-promises'],
  ['test/floating.ts', 'const f = async (): Promise<void> => {};\nf();\n', 'no-floating-promises'],
  [
    'src/agent/misused.ts',
    'const f = async (): Promise<boolean> => true;\nexport const x = f() ? 1 : 2;\n',
    'no-misused-promises',
  ],
  ['src/agent/await.ts', 'const one = (): number => 1;\nexport const x = await one();\n', 'await-thenable'],
];

const good: Record<string, string> = {
  'src/agent/down.ts':
    "import { one, type Task } from '../model/task.js';\nexport const task: Task = { id: String(one) };\n",
  'src/agent/epoch.ts': 'export const epoch = new Date(0);\n',
  'src/system/clock.ts':
    "export { randomBytes } from 'node:crypto';\nexport const now = Date.now();\nexport const date = new Date();\nsetTimeout(() => {}, 1);\n",
  'src/crypto/box.ts':
    "export { default } from 'tweetnacl';\nexport { randomFillSync } from 'node:crypto';\n",
  'src/pki/der.ts': "export { default } from 'node-forge';\n",
  'src/cli/say.ts': "import { two } from '../agent/vault.js';\nconsole.log(two);\n",
  'test/vault.ts': "export { two } from '../src/agent/vault.js';\nsetTimeout(() => {}, Date.now());\n",
};

const own = ['scripts', '.oxlintrc.json', 'tsconfig.json'];
const oxlint = ['node_modules/oxlint/bin/oxlint', '--type-aware', '--deny-warnings', '-f', 'unix', '.'];

test('every forbidden import and habit is found, and nothing else in its file', async (t) => {
  const here = checkout(t, own, { ...sources, ...Object.fromEntries(bad) });
  here.linkPackages();
  const { stdout } = await here.run('node', oxlint);
  const found = [...stdout.matchAll(/^([^:\n]+):.*\/(?:[\w-]+\()?([\w-]+)\)?\]$/gm)].map(
    ([, file, rule]) => `${file} ${rule}`,
  );
  t.deepEqual(found.toSorted(), bad.map(([file, , rule]) => `${file} ${rule}`).toSorted());
});

test('what is allowed passes, through the lint script', async (t) => {
  const here = checkout(t, own, { ...sources, ...good });
  here.linkPackages();
  const { code, stderr } = await here.run('node', ['scripts/lint.mjs', 'oxlint']);
  t.regex(stderr, /^inro lint: oxlint ok \d+\.\d s\n$/);
  t.is(code, 0);
});

test('the lint script shows what the tool said, and fails', async (t) => {
  const here = checkout(t, own, { 'src/agent/later.ts': 'setTimeout(() => {}, 1);\n' });
  here.linkPackages();
  const { code, stderr } = await here.run('node', ['scripts/lint.mjs', 'oxlint']);
  t.regex(stderr, /src\/agent\/later\.ts[^]*\ninro lint: oxlint failed \(exit code 1\) \d+\.\d s\n$/);
  t.is(code, 1);
});
