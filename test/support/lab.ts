/**
 * Tests that need programs and rights beyond a plain host, or that take long: those of INRO_TEST_LAB=1 (scripts/test/lab.mjs installs
 * what they need).
 */
import test, { type ExecutionContext } from 'ava';
import { scenario } from './host.js';

export const inLab = process.env['INRO_TEST_LAB'] === '1';

/** As test.serial. */
export const labStep: (title: string, body: (t: ExecutionContext) => void | Promise<void>) => void = inLab
  ? (title, body) => test.serial(title, body)
  : (title) => test.serial.skip(skipped(title), () => undefined);

export function labScenario(
  title: string,
  body: (t: ExecutionContext) => Promise<void>,
  options: Parameters<typeof scenario>[2] = {},
): void {
  if (inLab) scenario(title, body, options);
  else test.skip(skipped(title), () => undefined);
}

function skipped(title: string): string {
  return `${title} (skipped: INRO_TEST_LAB is not 1)`;
}
