/** A small checkout in a directory of its own, to run this one's scripts in. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';

/** The checkout that these tests belong to. */
export const repository = fileURLToPath(new URL('../../../', import.meta.url));

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

/**
 * A directory with the given files, and those of this checkout that are named in `own`; removed after the test.
 * A file whose content begins with #! is executable.
 */
export function checkout(t: ExecutionContext, own: string[], files: Record<string, string> = {}): Checkout {
  const root = mkdtempSync(join(tmpdir(), 'checkout-'));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  for (const path of own) cpSync(join(repository, path), join(root, path), { recursive: true });
  const made = new Checkout(root);
  for (const [path, content] of Object.entries(files)) made.write(path, content);
  return made;
}

export class Checkout {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  at(...path: string[]): string {
    return join(this.root, ...path);
  }

  write(path: string, content: string): void {
    mkdirSync(dirname(this.at(path)), { recursive: true });
    writeFileSync(this.at(path), content);
    if (content.startsWith('#!')) chmodSync(this.at(path), 0o755);
  }

  /** The packages of this checkout, in a node_modules of its own. */
  linkPackages(): void {
    mkdirSync(this.at('node_modules'));
    for (const name of readdirSync(join(repository, 'node_modules'))) {
      if (name !== '.inro-setup')
        symlinkSync(join(repository, 'node_modules', name), this.at('node_modules', name));
    }
  }

  /** Starts a program here. Its PATH begins with the checkout's own bin/, where stand-ins go. */
  start(program: string, args: string[], variables: Record<string, string> = {}): Running {
    const { npm_execpath: _, npm_lifecycle_event: __, INRO_TEST_LAB: ___, ...inherited } = process.env;
    const env = { ...inherited, PATH: `${this.at('bin')}:${process.env['PATH'] ?? ''}`, ...variables };
    return new Running(spawn(program, args, { cwd: this.root, env, stdio: ['ignore', 'pipe', 'pipe'] }));
  }

  run(program: string, args: string[], variables: Record<string, string> = {}): Promise<Ended> {
    return this.start(program, args, variables).ended;
  }
}

export class Running {
  readonly ended: Promise<Ended>;
  readonly #child: ChildProcess;
  #stdout = '';
  #stderr = '';

  constructor(child: ChildProcess) {
    this.#child = child;
    child.stdout?.on('data', (chunk: Buffer) => (this.#stdout += chunk.toString()));
    child.stderr?.on('data', (chunk: Buffer) => (this.#stderr += chunk.toString()));
    this.ended = once(child, 'close').then(([code]) => ({
      code: code as number | null,
      stdout: this.#stdout,
      stderr: this.#stderr,
    }));
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Resolves when it has said `words` on either stream; rejects when it ends without. */
  async said(words: string): Promise<void> {
    const over = this.ended.then(({ code, stdout, stderr }) => {
      throw new Error(`ended with ${String(code)} and never said ${words}:\n${stdout}${stderr}`);
    });
    while (!`${this.#stdout}${this.#stderr}`.includes(words)) {
      await Promise.race([once(this.#child.stdout!, 'data'), once(this.#child.stderr!, 'data'), over]);
    }
    over.catch(() => {});
  }
}
