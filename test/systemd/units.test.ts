/** The units as systemd reads them: it understands every line, and gives the manager the exposure level that its unit says. */
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

analysed(`the manager is as little exposed as its unit says${suffix}`, async (t) => {
  const [, said = ''] = /exposure level ([0-9.]+)/.exec(text('inro-manager.service')) ?? [];
  t.true(Number(said) > 0 && Number(said) < 2, said);
  const unit = join(folder, 'inro-manager.service');
  const threshold = String(Math.round(Number(said) * 10));
  const { code, stdout } = await analyse('security', '--offline=true', `--threshold=${threshold}`, unit);
  t.is(code, 0, stdout);
});

test('the agent has no mount namespace: its mount is for the host', (t) => {
  // systemd.exec(5): each of them gives a unit one.
  const forbidden =
    /^(Private(Tmp|Devices|Mounts|Users|IPC)|Protect(System|Home|Proc|Kernel\w+|ControlGroups|Hostname|Clock)|ProcSubset|(ReadWrite|ReadOnly|Inaccessible|Exec|NoExec)Paths|(Temporary|Root|Mount)\w+|Bind\w*Paths|DynamicUser)=/m;
  t.notRegex(text('inro-agent.service'), forbidden);
  t.regex(text('inro-manager.service'), forbidden);
});

function analyse(...args: string[]): Promise<Result> {
  return run(['systemd-analyze', '--no-pager', ...args], { env: { SYSTEMD_COLORS: '0' } });
}
