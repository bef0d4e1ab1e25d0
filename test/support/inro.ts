/**
 * The built program as its users run it: real processes, what they print, and how they end. A process that is
 * started here dies with the test process, however that ends.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';

/** dist/src/cli/main.js */
export const program = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

/** Longest wait for a command that ends by itself; a change may wait 30 s for nodes. */
const commandMs = 60_000;
/** Longest wait for a long-running command to be ready, or to end. */
const daemonMs = 30_000;

export interface RunOptions {
  stdin?: string | Uint8Array;
  /** Added to the test's own environment. */
  env?: Readonly<Record<string, string>>;
  cwd?: string;
  timeoutMs?: number;
  /** Of a daemon: its standard input stays open, for say(). */
  talks?: boolean;
  /** Words in front of the command, such as `nsenter ...`, that make it run somewhere else. */
  through?: readonly string[];
}

export interface Result {
  /** The exit code; 128 + the signal's number when a signal ended it, as a shell says it. */
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs `inro ARGS` to its end. @throws when it takes longer than `timeoutMs`. */
export function inro(args: readonly string[], options: RunOptions = {}): Promise<Result> {
  return run([process.execPath, program, ...args], options);
}

/** Runs any command to its end. */
export async function run(command: readonly string[], options: RunOptions = {}): Promise<Result> {
  const child = launch(command, options);
  child.stdin?.on('error', () => undefined); // it may end without reading
  child.stdin?.end(options.stdin);
  const printed = collect(child);
  const timeoutMs = options.timeoutMs ?? commandMs;
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
  const code = await exitOf(child);
  clearTimeout(timer);
  const result = { code, ...printed };
  if (child.signalCode === 'SIGKILL')
    throw new Error(`${describe(command)} ended in ${timeoutMs} ms only by force: ${JSON.stringify(result)}`);
  return result;
}

/** Asserts a failure as an operator should see it: the code, words on standard error alone, and no stack. */
export function refused(t: ExecutionContext, result: Result, code: 1 | 2, words: RegExp): void {
  const { stdout, stderr } = result;
  t.is(result.code, code, stderr);
  t.is(stdout, '');
  t.regex(stderr, words);
  t.regex(stderr, /^inro: [^\n]+\n( {6}[^\n]+\n)?$/, 'one line, and at most one on what to do');
}

/** A command that runs until it is stopped. */
export class Daemon {
  readonly #child: ChildProcess;
  readonly #printed: { stdout: string; stderr: string };
  readonly #name: string;
  /** Its exit code, once it has ended. */
  readonly exited: Promise<number>;

  constructor(command: readonly string[], options: RunOptions = {}) {
    this.#child = launch(command, options);
    if (options.talks !== true) this.#child.stdin?.end();
    this.#printed = collect(this.#child);
    this.#name = describe(command);
    this.exited = exitOf(this.#child);
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get stdout(): string {
    return this.#printed.stdout;
  }

  /** Its log. */
  get stderr(): string {
    return this.#printed.stderr;
  }

  /** What it printed, as the pattern matches it. @throws when it ends, or takes longer than 30 s. */
  async printed(pattern: RegExp): Promise<RegExpExecArray> {
    const deadline = Date.now() + daemonMs;
    for (;;) {
      const hasEnded = !this.running;
      if (hasEnded) await this.exited; // with all that it printed
      const found = pattern.exec(this.stdout) ?? pattern.exec(this.stderr);
      if (found !== null) return found;
      const why = hasEnded ? 'has ended' : Date.now() > deadline ? `takes longer than ${daemonMs} ms` : '';
      if (why !== '') throw new Error(`${this.#name} ${why} before it printed ${pattern}:\n${this.#end}`);
      await pause(10);
    }
  }

  /** The last that it printed, for a message. */
  get #end(): string {
    return `${this.stdout}${this.stderr}`.slice(-4_000);
  }

  /** A line to its standard input. */
  say(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  /** The end of its standard input. Resolves with the exit code. */
  async hangUp(): Promise<number> {
    this.#child.stdin?.end();
    return this.exited;
  }

  /** SIGTERM. Resolves with the exit code. */
  async stop(): Promise<number> {
    this.#child.kill('SIGTERM');
    const late = pause(daemonMs).then(() => {
      throw new Error(`${this.#name} does not end on SIGTERM:\n${this.#end}`);
    });
    return Promise.race([this.exited, late]);
  }

  /** SIGKILL. Resolves when it is gone. */
  async kill9(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.exited;
  }
}

/** A wait that keeps no process alive. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}

/** Resolves as soon as `look` gives something. @throws after `timeoutMs`, saying what was waited for. */
export async function eventually<T>(
  what: string,
  look: () => Promise<T | undefined | false>,
  timeoutMs: number = daemonMs,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain: ${what}`);
    await pause(25);
  }
}

function launch(command: readonly string[], { env, cwd, through = [] }: RunOptions): ChildProcess {
  // The kernel kills it when this process ends, whatever else does not run then.
  const leash = process.platform === 'linux' ? ['setpriv', '--pdeathsig', 'KILL'] : [];
  const [file, ...args] = [...leash, ...through, ...command] as [string, ...string[]];
  const {
    INRO_MANAGER: _,
    INRO_IDENTITY: ____,
    INRO_LOG_LEVEL: __,
    SUDO_USER: ___,
    ...inherited
  } = process.env;
  return spawn(file, args, { cwd: cwd ?? '/', env: { ...inherited, ...env }, stdio: 'pipe' });
}

function collect(child: ChildProcess): { stdout: string; stderr: string } {
  const printed = { stdout: '', stderr: '' };
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (printed.stdout += text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (printed.stderr += text));
  return printed;
}

async function exitOf(child: ChildProcess): Promise<number> {
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  if (code !== null) return code;
  const { constants } = await import('node:os');
  return 128 + constants.signals[signal as NodeJS.Signals];
}

function describe(command: readonly string[]): string {
  return command
    .map((word) => (word === process.execPath || word === program ? '' : word))
    .join(' ')
    .trim();
}
