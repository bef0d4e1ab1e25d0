/** A reader in Python, for the system calls that node:fs does not have; what it can do is in kernel_calls.py. */
import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';

/** Where kernel_calls.py stands: in the checkout, not compiled with the tests. Python is there where the addon is built. */
export const kernelCallsFolder = fileURLToPath(new URL('../../../test/support/', import.meta.url));
const program = join(kernelCallsFolder, 'kernel_calls.py');
/** Longest wait for one call; beyond it the mount hangs. */
const replyMs = 30_000;

interface Reply {
  value?: unknown;
  failure?: string;
}

export class KernelCalls {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  /** Ends with the test. @param through words in front of the command, that make it run somewhere else. */
  static of(t: ExecutionContext, through: readonly string[] = []): KernelCalls {
    const calls = new KernelCalls(through);
    t.teardown(() => calls.close());
    return calls;
  }

  constructor(through: readonly string[] = []) {
    const [file, ...args] = ['setpriv', '--pdeathsig', 'KILL', ...through, 'python3', program] as const;
    this.#child = spawn(file, args, { cwd: '/', stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]();
  }

  /** The value of an expression; of statements, nothing. @throws when it fails. */
  async call<T = unknown>(python: string): Promise<T> {
    const { value, failure } = await this.#ask(python);
    if (failure !== undefined) throw new Error(`${python} failed: ${failure}`);
    return value as T;
  }

  /** The errno's name that it fails with; `ok` when it does not fail. */
  async fails(python: string): Promise<string> {
    return (await this.#ask(python)).failure ?? 'ok';
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await ended;
  }

  async #ask(python: string): Promise<Reply> {
    this.#child.stdin?.write(`${JSON.stringify(python)}\n`);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${python}: no answer in ${replyMs} ms`)), replyMs);
    });
    const { value, done } = await Promise.race([this.#lines.next(), late]);
    clearTimeout(timer);
    if (done === true) throw new Error(`${python}: the reader has ended`);
    return JSON.parse(value) as Reply;
  }
}
