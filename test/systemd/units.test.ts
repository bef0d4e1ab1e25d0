/** The units as systemd reads them: it understands every line, and gives both the exposure level that they say. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { run, type Result } from '../support/inro.js';

const folder = fileURLToPath(new URL('../../../systemd/', import.meta.url));
const units = ['inro-agent.service', 'inro-manager.service'];

function text(name: string): string {
  return readFileSync(join(folder, name), 'utf8');
}

function missing(): string | undefined {
  try {
    execFileSync('systemd-analyze', ['--version'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'needs systemd-analyze';
  }
}

const why = missing();
const analysed = why === undefined ? test : test.skip;
const suffix = why === undefined ? '' : ` (skipped: ${why})`;

analysed(`systemd-analyze verify has nothing to say${suffix}`, async (t) => {
  const place = mkdtempSync(join(tmpdir(), 'units-'));
  t.teardown(() => rmSync(place, { recursive: true, force: true }));
  // It wants the program to be there.
  for (const unit of units)
    writeFileSync(join(place, unit), text(unit).replaceAll('/usr/bin/inro', process.execPath));
  const paths = units.map((unit) => join(place, unit));
  t.deepEqual(await analyse('verify', ...paths), { code: 0, stdout: '', stderr: '' });

  const wrong = join(place, 'wrong.service');
  writeFileSync(wrong, `[Service]\nExecStart=${process.execPath}\nProtectEverything=yes\n`);
  t.regex((await analyse('verify', wrong)).stderr, /ProtectEverything/, 'it looks');
});

for (const [unit, most] of [
  ['inro-manager.service', 2],
  ['inro-agent.service', 3],
] as const) {
  analysed(`${unit} is as little exposed as it says${suffix}`, async (t) => {
    const [, said = ''] = /exposure level ([0-9.]+)/.exec(text(unit)) ?? [];
    t.true(Number(said) > 0 && Number(said) < most, said);
    const threshold = String(Math.round(Number(said) * 10));
    const args = ['--offline=true', `--threshold=${threshold}`, join(folder, unit)];
    const { code, stdout } = await analyse('security', ...args);
    t.is(code, 0, stdout);
  });
}

function analyse(...args: string[]): Promise<Result> {
  return run(['systemd-analyze', '--no-pager', ...args], { env: { SYSTEMD_COLORS: '0' } });
}
