/** Where a benchmark works: a folder of its own and processes, all of which go when it ends, however it does. */
import { fork, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { guardMounts, type MountGuard } from '../../test/support/mount_guard.js';

export interface Placement {
  /** The one processor that it and all its threads may use. */
  cpu?: number | undefined;
  env?: Readonly<Record<string, string>>;
}

export class Lab {
  readonly #guard: MountGuard;
  readonly #children = new Set<ChildProcess>();
  readonly #say: (words: string) => void;
  readonly #ends: (() => Promise<void>)[] = [];
  #isClosed = false;

  private constructor(guard: MountGuard, say: (words: string) => void) {
    this.#guard = guard;
    this.#say = say;
  }

  static async open(say: (words: string) => void): Promise<Lab> {
    return new Lab(await guardMounts(), say);
  }

  /** A path in the lab's folder. Another process takes away what is mounted below it, should this one be killed. */
  path(name: string): string {
    return join(this.#guard.scratch, name);
  }

  /** Says what is being done. */
  say(words: string): void {
    this.#say(words);
  }

  /** What is not the lab's own, and has to end with it; the latest first. */
  async endWith(end: () => Promise<void>): Promise<void> {
    if (this.#isClosed) await end();
    else this.#ends.push(end);
  }

  /** Runs a program to its end; gives back what it printed. @throws when it fails, with what it said. */
  async run(program: string, args: readonly string[], placement: Placement = {}): Promise<string> {
    const child = this.start(program, args, placement);
    const printed = { stdout: '', stderr: '' };
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (printed.stdout += text));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (printed.stderr += text));
    child.stdin?.end();
    const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
    if (code !== 0)
      throw new Error(`${program} ${args.join(' ')}: ${printed.stderr.trim() || signal || code}`);
    return printed.stdout;
  }

  start(program: string, args: readonly string[], placement: Placement = {}): ChildProcess {
    const [file = '', ...words] = [...through(placement), program, ...args];
    return this.#keep(spawn(file, words, { cwd: '/', env: environment(placement), detached: true }));
  }

  /** A Node process that can be sent messages. */
  fork(module: string, args: readonly string[], placement: Placement = {}): ChildProcess {
    const [execPath, ...execArgv] = [...through(placement), process.execPath];
    const options = { cwd: '/', env: environment(placement), execPath, execArgv, detached: true };
    return this.#keep(fork(module, args, options));
  }

  /** Ends every process and what else was given to it, takes away every mount and the folder. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const child of this.#children) child.kill('SIGKILL');
    for (const end of this.#ends.reverse())
      await end().catch((error: Error) => this.#say(`left behind: ${error.message}`));
    await this.#guard.cleanUp();
    // Only now: a reader of a mount that hangs ends with the mount.
    await Promise.all([...this.#children].map(ended));
  }

  #keep(child: ChildProcess): ChildProcess {
    if (this.#isClosed) child.kill('SIGKILL');
    this.#children.add(child);
    child.once('exit', () => this.#children.delete(child));
    child.once('error', () => this.#children.delete(child));
    return child;
  }
}

/** Words in front of a command: the kernel kills it when this process ends, and places it. */
function through({ cpu }: Placement): string[] {
  const leash = ['setpriv', '--pdeathsig', 'KILL'];
  return cpu === undefined ? leash : [...leash, 'taskset', '--cpu-list', String(cpu)];
}

function environment({ env }: Placement): NodeJS.ProcessEnv {
  return { ...process.env, ...env };
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}
