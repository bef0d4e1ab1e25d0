/** Tests that need programs and rights beyond a plain host: those of INRO_TEST_LAB=1 (scripts/test/lab.mjs installs them). */
import test, { type ExecutionContext } from 'ava';
import { scenario } from './host.js';

const inLab = process.env['INRO_TEST_LAB'] === '1';

export function labScenario(
  title: string,
  body: (t: ExecutionContext) => Promise<void>,
  options: Parameters<typeof scenario>[2] = {},
): void {
  if (inLab) scenario(title, body, options);
  else test.skip(`${title} (skipped: INRO_TEST_LAB is not 1)`, () => undefined);
}
