/** What of a file is not taken: gathered, so that one run says all of it. */
import { asInroError, InroError } from '../../model/error.js';
import { quoted } from '../../model/name.js';

const maxShown = 50;

export class Refusals {
  readonly #lines: string[] = [];

  /** @param place such as `services.web.ports`. */
  add(place: string, why: string): void {
    this.#lines.push(`${place}: ${why}`);
  }

  get count(): number {
    return this.#lines.length;
  }

  /** What this gives back; undefined, and noted, when it is refused. */
  try<T>(place: string, make: () => T): T | undefined {
    try {
      return make();
    } catch (thrown) {
      const error = asInroError(thrown);
      if (error.code === 'internal') throw thrown;
      this.add(place, error.remedy === undefined ? error.message : `${error.message} (${error.remedy})`);
      return undefined;
    }
  }

  /** @throws bad_input with all that was refused. */
  check(path: string): void {
    if (this.#lines.length === 0) return;
    const shown = this.#lines.slice(0, maxShown).map((line) => `\n        ${line}`);
    const more = this.#lines.length > maxShown ? `\n        and ${this.#lines.length - maxShown} more` : '';
    const count = this.#lines.length === 1 ? 'one thing is' : `${this.#lines.length} things are`;
    throw new InroError('bad_input', `${quoted(path)}: ${count} not taken${shown.join('')}${more}`, {
      remedy: 'docs/configuration.md says what is taken',
    });
  }
}
