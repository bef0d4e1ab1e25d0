/** Parts of a Compose file, each read as what it must be; what is another thing is noted, and stands for nothing. */
import type { Refusals } from './refusals.js';

export class Part {
  readonly #value: unknown;
  readonly place: string;
  readonly #refusals: Refusals;

  constructor(value: unknown, place: string, refusals: Refusals) {
    this.#value = value;
    this.place = place;
    this.#refusals = refusals;
  }

  get isGiven(): boolean {
    return this.#value !== undefined && this.#value !== null;
  }

  /** How much of the file has been refused so far: when that has grown, what is made of it is not worth a look. */
  get refused(): number {
    return this.#refusals.count;
  }

  refuse(why: string): undefined {
    this.#refusals.add(this.place || 'the file', why);
    return undefined;
  }

  try<T>(make: () => T): T | undefined {
    return this.#refusals.try(this.place, make);
  }

  text(): string | undefined {
    if (!this.isGiven) return undefined;
    const value = this.#value;
    if (typeof value === 'string') return value;
    if (typeof value === 'number' || typeof value === 'boolean') return String(value);
    return this.refuse('is to be a text');
  }

  /** Of some words. */
  word<W extends string>(words: readonly W[], otherwise: (text: string) => string): W | undefined {
    const text = this.text();
    const word = words.find((one) => one === text);
    return text === undefined || word !== undefined ? word : this.refuse(otherwise(text));
  }

  number(): number | undefined {
    const text = this.text();
    if (text === undefined) return undefined;
    return /^[0-9]+(\.[0-9]+)?$/.test(text) ? Number(text) : this.refuse('is to be a number, 0 or more');
  }

  whole(): number | undefined {
    const number = this.number();
    return number === undefined || Number.isInteger(number) ? number : this.refuse('is to be a whole number');
  }

  flag(): boolean | undefined {
    const text = this.text();
    if (text === undefined) return undefined;
    return /^(true|false)$/.test(text) ? text === 'true' : this.refuse('is to be true or false');
  }

  /** `1h30m`, `1.5s`, `500ms`, as Compose writes it. @returns seconds. */
  seconds(): number | undefined {
    const text = this.text();
    if (text === undefined) return undefined;
    if (!/^([0-9]+(\.[0-9]+)?(us|ms|s|m|h|d))+$|^0$/.test(text))
      return this.refuse('is to be a length of time, such as 1m30s');
    const units = { us: 1e-6, ms: 1e-3, s: 1, m: 60, h: 3600, d: 86_400 };
    const pieces = [...text.matchAll(/([0-9.]+)(us|ms|s|m|h|d)/g)];
    return pieces.reduce((sum, [, n, unit]) => sum + Number(n) * units[unit as keyof typeof units], 0);
  }

  list(): Part[] {
    if (!this.isGiven) return [];
    if (!Array.isArray(this.#value)) return this.refuse('is to be a list') ?? [];
    return this.#value.map((one, index) => this.#inner(one, String(index)));
  }

  isList(): boolean {
    return Array.isArray(this.#value);
  }

  isText(): boolean {
    return typeof this.#value === 'string';
  }

  isMapping(): boolean {
    return typeof this.#value === 'object' && this.#value !== null && !this.isList();
  }

  /** Every key with its part, in the file's order. */
  entries(): [string, Part][] {
    if (!this.isGiven) return [];
    if (!this.isMapping()) return this.refuse('is to be a mapping') ?? [];
    return Object.entries(this.#value as object).map(([key, one]) => [key, this.#inner(one, key)]);
  }

  /**
   * The keys that are taken; others are refused, with the reason if there is one. Those that begin with x- are passed over,
   * unless they are taken.
   */
  keys<K extends string>(taken: readonly K[], why: Readonly<Record<string, string>> = {}): Record<K, Part> {
    const given = new Map(this.entries());
    const isTaken = new Set<string>(taken);
    for (const [key, part] of given)
      if (!isTaken.has(key) && !key.startsWith('x-')) part.refuse(why[key] ?? 'is not known here');
    return Object.fromEntries(
      taken.map((key) => [key, given.get(key) ?? this.#inner(undefined, key)]),
    ) as Record<K, Part>;
  }

  /** A mapping of texts, or a list of KEY=VALUE. @param bare what a key without a value stands for; undefined: nothing. */
  pairs(bare: (key: string) => string | undefined): Record<string, string> | undefined {
    if (!this.isGiven) return undefined;
    const pairs: Record<string, string> = {};
    const put = (key: string, value: string | undefined): void => {
      if (value !== undefined) pairs[key] = value;
    };
    if (this.isList())
      for (const one of this.list()) {
        const text = one.text() ?? '';
        const at = text.indexOf('=');
        if (at < 0) put(text, bare(text));
        else put(text.slice(0, at), text.slice(at + 1));
      }
    else for (const [key, one] of this.entries()) put(key, one.isGiven ? one.text() : bare(key));
    return pairs;
  }

  #inner(value: unknown, key: string): Part {
    return new Part(value, this.place === '' ? key : `${this.place}.${key}`, this.#refusals);
  }
}
