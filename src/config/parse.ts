/**
 * YAML into settings, or one error that says where it is wrong and what must stand there. Of YAML (1.2, core schema) only what
 * such a file needs is taken: a tag or an alias would let a value be something else than what one reads.
 */
import { createRequire } from 'node:module';
import type * as Yaml from 'yaml';
import type { z } from 'zod';
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';
import { nearest } from './suggestion.js';

const load = createRequire(import.meta.url);
/** Loaded with the first file: an agent or a manager without one starts without it. */
const yaml = (): typeof Yaml => load('yaml') as typeof Yaml;

/** @param path for messages alone. @throws bad_config, naming the first line that is wrong. */
export function parseConfig<K extends z.ZodObject>(text: string, path: string, keys: K): z.infer<K> {
  const lines = new (yaml().LineCounter)();
  const place = (offset: number): string => `${path} line ${lines.linePos(offset).line}`;
  const document = parsed(text, path, lines);
  checkPlain(document, place);
  const { contents } = document;
  if (contents === null || (yaml().isScalar(contents) && contents.value === null)) return keys.parse({});
  if (!yaml().isMap(contents)) {
    throw wrong(`${path} does not say KEY: VALUE`, `its keys are ${Object.keys(keys.shape).join(', ')}`);
  }
  checkKeys(contents, Object.keys(keys.shape), place);
  const checked = keys.safeParse(document.toJS({ maxAliasCount: 0 }));
  if (checked.success) return checked.data;
  throw firstWrong(checked.error, document, place);
}

function parsed(text: string, path: string, lines: Yaml.LineCounter): Yaml.Document {
  let document: Yaml.Document;
  try {
    document = yaml().parseDocument(text, {
      schema: 'core',
      merge: false,
      stringKeys: true,
      prettyErrors: false,
      lineCounter: lines,
    });
  } catch (cause) {
    throw wrong(`${path} cannot be read as YAML: ${(cause as Error).message}`, howToWrite, cause);
  }
  // What yaml only warns of (a tag or directive that it does not know) changes what a value is.
  const [first] = [...document.errors, ...document.warnings].sort((a, b) => a.pos[0] - b.pos[0]);
  if (first === undefined) return document;
  const { line, col } = lines.linePos(first.pos[0]);
  const why = first.code === 'MULTIPLE_DOCS' ? 'a second document begins here' : first.message;
  throw wrong(`${path} line ${line} column ${col} is not right: ${why}`, howToWrite, first);
}

function checkPlain(document: Yaml.Document, place: (offset: number) => string): void {
  yaml().visit(document, {
    Node(_, node) {
      const what = yaml().isAlias(node)
        ? 'an alias'
        : node.anchor !== undefined
          ? 'an anchor'
          : node.tag !== undefined
            ? 'a tag'
            : '';
      if (what !== '')
        throw wrong(
          `${place(node.range?.[0] ?? 0)} has ${what}, which has no place in such a file`,
          'write the value itself',
        );
    },
  });
}

function checkKeys(map: Yaml.YAMLMap, known: readonly string[], place: (offset: number) => string): void {
  for (const { key } of map.items) {
    const name = yaml().isScalar(key) ? String(key.value) : '';
    if (known.includes(name)) continue;
    const where = place(yaml().isNode(key) ? (key.range?.[0] ?? 0) : 0);
    const meant = nearest(name, known);
    throw wrong(
      `unknown key ${named(name)} in ${where}${meant === undefined ? '' : `: did you mean '${meant}'?`}`,
      `the keys are ${known.join(', ')}`,
    );
  }
}

/** Of several that are wrong, the one that stands first in the file. */
function firstWrong(
  error: z.ZodError,
  document: Yaml.Document,
  place: (offset: number) => string,
): InroError {
  const found = error.issues.map(({ path, message }) => {
    const node = document.getIn(path, true);
    return { path, message, node, offset: yaml().isNode(node) ? (node.range?.[0] ?? 0) : 0 };
  });
  const [{ path, message, node, offset }] = found.sort((a, b) => a.offset - b.offset) as [(typeof found)[0]];
  const [key, item] = path;
  const what = typeof item === 'number' ? `item ${item + 1} of '${String(key)}'` : `'${String(key)}'`;
  return wrong(
    `${what} in ${place(offset)} must be ${message}, ${shown(node)}`,
    'docs/configuration.md has each key with an example',
  );
}

function shown(node: unknown): string {
  if (yaml().isSeq(node)) return `not a list of ${node.items.length}`;
  if (!yaml().isScalar(node)) return 'not keys and values';
  const { value } = node;
  if (value === null) return 'but nothing stands there';
  return typeof value === 'string'
    ? `not ${quoted(value)}`
    : `not the ${typeof value} ${value as number | boolean}`;
}

/** A key as it was typed, if that can be shown. */
function named(key: string): string {
  return /^[\w.-]{1,40}$/.test(key) ? `'${key}'` : quoted(key);
}

const howToWrite = 'write one KEY: VALUE on each line; docs/configuration.md has an example';

function wrong(message: string, remedy: string, cause?: unknown): InroError {
  return new InroError('bad_config', message, { remedy, cause });
}
