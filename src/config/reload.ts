/**
 * A running agent or manager takes its file's new settings: those that can change at once do, for the others it says that
 * they need a restart. A file that is broken changes nothing.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Logger } from 'pino';
import { asInroError } from '../model/error.js';

export interface ReloadParts<T extends object> {
  /** Reads the file again. */
  read: () => T;
  /** What it said when the process began. */
  started: T;
  /** How a key changes at once; undefined: the file does not say it any more. Keys without it need a restart. */
  apply: { readonly [K in keyof T]?: (value: T[K] | undefined) => void };
  /** Keys that the command line or the environment decides, whatever the file says. */
  decided: ReadonlySet<keyof T>;
  log: Logger;
}

export class Reload<T extends object> {
  readonly #parts: ReloadParts<T>;
  /** As of the last time that the file was any good. */
  #present: T;

  constructor(parts: ReloadParts<T>) {
    this.#parts = parts;
    this.#present = parts.started;
  }

  /** Never throws: what goes wrong is logged. */
  again(): void {
    const { read, log } = this.#parts;
    let next: T;
    try {
      next = read();
    } catch (thrown) {
      const error = asInroError(thrown);
      log.error(
        { err: error, remedy: error.remedy },
        'the settings stay as they are: the new ones cannot be used',
      );
      return;
    }
    const { apply, started } = this.#parts;
    const now = this.#changed(this.#present, next).filter((key) => apply[key] !== undefined);
    const later = this.#changed(started, next).filter((key) => apply[key] === undefined);
    this.#present = next;
    this.#takeOver(now, next);
    if (later.length > 0) log.warn({ keys: later }, 'these settings have changed, and need a restart');
    if (now.length === 0 && later.length === 0) log.info('the settings were read again: nothing has changed');
  }

  /** Said before or after, as the old log level or the new one lets it be heard. */
  #takeOver(keys: readonly (keyof T)[], next: T): void {
    if (keys.length === 0) return;
    const { apply, log } = this.#parts;
    const changed = Object.fromEntries(keys.map((key) => [key, next[key] ?? null]));
    const say = (): void => log.info({ changed }, 'the settings have changed');
    const heard = log.isLevelEnabled('info');
    if (heard) say();
    for (const key of keys) apply[key]?.(next[key]);
    if (!heard) say();
  }

  #changed(before: T, after: T): (keyof T)[] {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])] as (keyof T)[];
    return keys.filter((key) => !this.#parts.decided.has(key) && !isDeepStrictEqual(before[key], after[key]));
  }
}
