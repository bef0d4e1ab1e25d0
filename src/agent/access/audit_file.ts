/**
 * Records of accesses on disk: a line of JSON each, in a file that its owner alone can read. At its full size it becomes `.1`, that
 * `.2` and so on; the oldest goes. A disk that takes nothing keeps no reader waiting: what it did not take is counted.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { makeStateFolder } from '../../system/files.js';

export interface AuditFileOptions {
  folder: string;
  maxBytes: number;
  /** With the one that is written. */
  maxFiles: number;
  log: Logger;
}

const fileName = 'access.jsonl';

export class AuditFile {
  readonly #options: AuditFileOptions;
  readonly #path: string;
  #descriptor: number | undefined;
  #bytes = 0;
  #isFailing = false;
  /** Lines that the disk did not take. */
  lost = 0;

  constructor(options: AuditFileOptions) {
    this.#options = options;
    this.#path = join(options.folder, fileName);
  }

  append(lines: readonly string[]): void {
    if (lines.length === 0) return;
    const text = Buffer.from(lines.map((line) => `${line}\n`).join(''));
    try {
      this.#write(text);
      if (this.#isFailing) this.#options.log.info({ lost: this.lost }, 'accesses are written again');
      this.#isFailing = false;
    } catch (error) {
      this.lost += lines.length;
      if (!this.#isFailing)
        this.#options.log.error(
          { err: error, file: this.#path },
          'accesses cannot be written: they are counted alone',
        );
      this.#isFailing = true;
      this.close();
    }
  }

  /** All that is there, oldest first; a line that was cut off by a full disk is left out. */
  *read(): Iterable<unknown> {
    for (let number = this.#options.maxFiles - 1; number >= 0; number--) {
      const path = this.#numbered(number);
      if (!existsSync(path)) continue;
      for (const line of readFileSync(path, 'utf8').split('\n')) {
        if (line === '') continue;
        try {
          yield JSON.parse(line);
        } catch {
          continue;
        }
      }
    }
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  #write(text: Uint8Array): void {
    if (this.#bytes > 0 && this.#bytes + text.length > this.#options.maxBytes) this.#rotate();
    if (this.#descriptor === undefined) {
      makeStateFolder(this.#options.folder);
      this.#descriptor = openSync(this.#path, 'a', 0o600);
      this.#bytes = fstatSync(this.#descriptor).size;
    }
    for (let at = 0; at < text.length;) at += writeSync(this.#descriptor, text, at);
    this.#bytes += text.length;
  }

  #rotate(): void {
    this.close();
    rmSync(this.#numbered(this.#options.maxFiles - 1), { force: true });
    for (let number = this.#options.maxFiles - 2; number >= 0; number--)
      if (existsSync(this.#numbered(number))) renameSync(this.#numbered(number), this.#numbered(number + 1));
    this.#bytes = 0;
  }

  #numbered(number: number): string {
    return number === 0 ? this.#path : `${this.#path}.${number}`;
  }
}
