/** Compiles the native core without Node, with its C++ tests, as a compiler and flags say. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export interface Flavour {
  compiler: string;
  flags: readonly string[];
}

const native = fileURLToPath(new URL('../../../native/', import.meta.url));
const always = ['-std=c++20', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Werror', '-pthread', `-I${native}core`];
const sources = readdirSync(join(native, 'core')).filter((name) => name.endsWith('.cc'));

/** One flavour's objects of the core, made once, in a folder that goes with the run. */
export class NativeBuild {
  readonly #flavour: Flavour;
  readonly #folder = mkdtempSync(join(tmpdir(), 'native-'));
  #objects: Promise<string[]> | undefined;

  constructor(flavour: Flavour) {
    this.#flavour = flavour;
  }

  /** The program of native/test/NAME.cc. @param flags of its own, not of the core. */
  async program(name: string, flags: readonly string[] = []): Promise<string> {
    this.#objects ??= this.#compileCore();
    const objects = await this.#objects;
    const out = join(this.#folder, name);
    await this.#compile([...flags, join(native, 'test', `${name}.cc`), ...objects, '-o', out]);
    return out;
  }

  async #compileCore(): Promise<string[]> {
    const waiting = [...sources];
    const objects: string[] = [];
    const worker = async (): Promise<void> => {
      for (let source = waiting.pop(); source !== undefined; source = waiting.pop()) {
        const object = join(this.#folder, `${basename(source, '.cc')}.o`);
        await this.#compile(['-c', join(native, 'core', source), '-o', object]);
        objects.push(object);
      }
    };
    await Promise.all(Array.from({ length: availableParallelism() }, worker));
    return objects;
  }

  async #compile(args: readonly string[]): Promise<void> {
    await promisify(execFile)(this.#flavour.compiler, [...always, ...this.#flavour.flags, ...args]);
  }
}
