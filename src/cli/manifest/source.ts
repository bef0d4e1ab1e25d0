/** A file whose values are in it: its bytes in the arena, and its structure from a mask of them. */
import { isAlias, isMap, isScalar, isSeq, parseAllDocuments, visit, type Document, type Scalar } from 'yaml';
import type { Arena } from '../../crypto/arena.js';
import type { Plaintext } from '../../crypto/plaintext.js';
import { InroError } from '../../model/error.js';
import { decodeInPlace } from './base64.js';
import { masked } from './mask.js';
import { readLoosely, readScalar, Sink, sourceOf } from './scalar.js';

/** Names and labels are no longer; what is longer is none. */
const maxNameBytes = 4096;

/** A mapping's key, as text, and what stands behind it. */
export interface Entry {
  key: string;
  node: unknown;
  /** The key's, in its line. */
  column: number;
}

export class Source {
  readonly #whole: Plaintext;
  /** Of the mask: what stands in it is where it is in the file, and says nothing. */
  readonly documents: readonly Document.Parsed[];

  /** @param whole its bytes; whoever gives it wipes it. */
  constructor(whole: Plaintext) {
    this.#whole = whole;
    this.documents = [
      ...parseAllDocuments(masked(whole.expose()), {
        schema: 'failsafe',
        // The keys of a mask are alike where they are equally long.
        uniqueKeys: false,
        logLevel: 'silent',
        prettyErrors: true,
      }),
    ] as Document.Parsed[];
  }

  /** What a parser has against the document, or what could hide something from it. */
  flaw(document: Document.Parsed): string | undefined {
    const [problem] = [...document.errors, ...document.warnings];
    if (problem !== undefined && problem.code !== 'TAG_RESOLVE_FAILED')
      return `is no YAML${placeOf(problem.message)}`;
    if (problem !== undefined) return hidden;
    let found: string | undefined;
    visit(document, {
      Node: (_, node) => {
        if (!isAlias(node) && node.anchor === undefined && node.tag === undefined) return undefined;
        found = hidden;
        return visit.BREAK;
      },
      Alias: () => {
        found = hidden;
        return visit.BREAK;
      },
    });
    return found;
  }

  /** Of a mapping; undefined for what is none, or has a key that is no text. */
  entries(node: unknown): Entry[] | undefined {
    if (!isMap(node)) return undefined;
    const entries: Entry[] = [];
    for (const { key, value } of node.items) {
      const text = isScalar(key) ? this.text(key) : undefined;
      if (text === undefined) return undefined;
      entries.push({ key: text, node: value, column: this.#columnOf(key as Scalar) });
    }
    return entries;
  }

  items(node: unknown): unknown[] | undefined {
    return isSeq(node) ? node.items : undefined;
  }

  /** A name, a label: never a value. undefined for what is none. */
  text(node: unknown): string | undefined {
    if (!isScalar(node)) return undefined;
    const length = Math.min(sourceOf(this.#whole.expose(), node).length, maxNameBytes);
    const sink = new Sink(new Uint8Array(new ArrayBuffer(length)));
    try {
      if (readScalar(this.#whole.expose(), node, sink, 0) !== undefined) return undefined;
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(sink.written);
    } catch {
      return undefined;
    }
  }

  /** Nothing, `~` or `null`. */
  isNull(node: unknown): boolean {
    if (node === null || node === undefined) return true;
    if (!isScalar(node) || node.type !== 'PLAIN') return false;
    const bytes = sourceOf(this.#whole.expose(), node);
    if (bytes.length > 4) return false;
    return /^(~|null|Null|NULL)?$/.test(Buffer.from(bytes).toString('latin1'));
  }

  /**
   * The value behind a key, in the arena; the caller wipes it.
   * @throws bad_input for what cannot be read without a string of it, is no base64, or is empty.
   */
  value({ node, column }: Entry, encoding: 'base64' | 'text', arena: Arena): Plaintext {
    if (!isScalar(node)) throw new InroError('bad_input', 'is to be one text');
    const bytes = this.#whole.expose();
    const scratch = arena.take(Math.max(1, sourceOf(bytes, node).length));
    try {
      const sink = new Sink(scratch.expose());
      const refused =
        encoding === 'base64' ? readLoosely(bytes, node, sink) : readScalar(bytes, node, sink, column);
      if (refused !== undefined)
        throw new InroError('bad_input', refused, {
          remedy: 'write it as one line, as a block with |, or in base64 under data',
        });
      const isAsParsed = node.type === 'QUOTE_DOUBLE' || sink.length === String(node.value).length;
      if (encoding === 'text' && !isAsParsed)
        throw new InroError('bad_input', 'is indented in a way that is not known', {
          remedy: 'write it as one line, or in base64 under data',
        });
      const length = encoding === 'base64' ? decodeInPlace(sink.written) : sink.length;
      if (length === undefined) throw new InroError('bad_input', 'is no base64');
      if (length === 0)
        throw new InroError('bad_input', 'is empty', { remedy: 'a secret has 1 byte to 1 MiB' });
      const value = arena.take(length);
      value.expose().set(scratch.expose().subarray(0, length));
      return value;
    } finally {
      scratch.wipe();
    }
  }

  #columnOf({ range }: Scalar): number {
    const from = range?.[0] ?? 0;
    return from - (this.#whole.expose().lastIndexOf(0x0a, from - 1) + 1);
  }
}

const hidden = 'has an anchor, an alias or a tag, which a manifest with values may not';

/** The place alone: the parser's words are of a mask. */
function placeOf(message: string): string {
  return / at line \d+, column \d+/.exec(message)?.[0] ?? '';
}
