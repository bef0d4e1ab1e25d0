/** The program that both systems run as the workload: workload.cc, compiled here. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Lab } from './lab.js';
import type { Sightings } from './sightings.js';

/** The compiled file stands in dist/bench/support. */
const source = fileURLToPath(new URL('../../../bench/support/workload.cc', import.meta.url));
const flags = ['-std=c++20', '-O2', '-static', '-Wall', '-Wextra', '-Werror'];

/** What engines call the image that is this program alone. */
export const image = 'workload';

export class Workload {
  /** Where the program is, as `file`. */
  readonly folder: string;
  readonly file = 'workload';

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async build(lab: Lab): Promise<Workload> {
    const workload = new Workload(lab.path('image'));
    await mkdir(workload.folder);
    await lab.run('g++', [...flags, '-o', join(workload.folder, workload.file), source]);
    return workload;
  }

  /** Looks at this file, and tells what it sees, by that name. */
  command(what: string, path: string, { socket }: Sightings): string[] {
    return [join(this.folder, this.file), what, path, socket];
  }
}
