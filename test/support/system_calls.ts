/** A mount that shows the same files twice, strict and with `mmap`, and a reader that makes rows of system calls on both. */
import type { ExecutionContext } from 'ava';
import type { PublishedFile } from '../../src/agent/mount/driver.js';
import { KernelCalls } from './kernel_calls.js';
import { mounted, type Mounted, type MountedOptions } from './mounted.js';

/**
 * Python (test/support/system_calls.py) and what it gives: a value, or in a string `ok`, an errno's name, a signal's. The third is
 * what a reference that says `mmap` gives, where that differs.
 */
export type Row = readonly [call: string, strict: unknown, mmap?: unknown];

/** For what kernels do differently. */
export class Either {
  readonly outcomes: readonly unknown[];

  constructor(outcomes: readonly unknown[]) {
    this.outcomes = outcomes;
  }
}

export function either(...outcomes: unknown[]): Either {
  return new Either(outcomes);
}

/** A name as long as a name may be. */
export const longest = 'n'.repeat(255);

const attributes: Record<string, Partial<PublishedFile>> = {
  key: {},
  own: { uid: 1000, mode: 0o400 },
  group: { gid: 44, mode: 0o040 },
  both: { uid: 1000, gid: 44, mode: 0o404 },
  closed: { mode: 0 },
  program: { mode: 0o555 },
  setuid: { mode: 0o6555 },
  'line\nbreak': {},
  ключ: {},
  [longest]: {},
};

/** Each file says `value`. Rows name the mount's `root`, the service's directory `web`, and in it `key` and `data` (`..data`). */
export class SystemCalls {
  readonly context: Mounted;
  readonly #calls: KernelCalls;

  private constructor(context: Mounted, calls: KernelCalls) {
    this.context = context;
    this.#calls = calls;
  }

  static async on(t: ExecutionContext, options?: MountedOptions): Promise<SystemCalls> {
    const context = await mounted(t, 'kernel', options);
    for (const service of ['strict', 'mmap']) publishAll(context, service);
    const calls = KernelCalls.of(t);
    await calls.call('import system_calls as calls');
    return new SystemCalls(context, calls);
  }

  async check(t: ExecutionContext, rows: readonly Row[]): Promise<void> {
    const texts = rows.map(([text]) => text);
    for (const [at, service] of ['strict', 'mmap'].entries()) {
      const outcomes = await this.outcomes(service, texts);
      for (const [index, [text, strict, mmap = strict]] of rows.entries()) {
        const expected = at === 0 ? strict : mmap;
        const allowed: readonly unknown[] = expected instanceof Either ? expected.outcomes : [expected];
        const outcome = outcomes[index];
        const match = allowed.find((one) => JSON.stringify(one) === JSON.stringify(outcome));
        t.deepEqual(outcome, match ?? allowed[0], `${service}: ${text}`);
      }
    }
  }

  async outcomes(service: string, texts: readonly string[]): Promise<unknown[]> {
    const { mountPoint: root, scratch } = this.context;
    const web = `${root}/${service}`;
    const paths = { root, web, key: `${web}/key`, data: `${web}/..data`, scratch };
    await this.#calls.call(`calls.place(**${JSON.stringify(paths)})`);
    return this.#calls.call(`calls.rows(${JSON.stringify(texts)})`);
  }
}

function publishAll({ driver, take }: Mounted, service: string): void {
  const files = Object.entries(attributes).map(([target, own]) => {
    const value = take(5);
    value.expose().set(Buffer.from('value'));
    const mmap = service === 'mmap';
    return { target, source: target, uid: 0, gid: 0, mode: 0o444, modifiedMs: 0, mmap, value, ...own };
  });
  const names = { taskId: `task-${service}`, serviceId: service, serviceName: service };
  driver.publish({ ...names, number: 1, graceMs: 10_000, files });
}
