/** YAML as people write it for inro: 1.2, but that a number with a 0 in front stays as it was written, which is octal to most. */
import { parse, type ParseOptions, type ScalarTag, type SchemaOptions } from 'yaml';
import { refusedFile } from './text.js';

const maxAliases = 100;

/** Otherwise 0440 would be 440, and 0o440 288: no mode could be told from the other. */
const octalText: ScalarTag = {
  tag: 'tag:yaml.org,2002:int',
  default: true,
  test: /^0o?[0-7]+$/,
  resolve: (text) => text,
};

const yamlOptions: ParseOptions & SchemaOptions = { customTags: (tags) => [octalText, ...tags] };

/** @throws bad_input with the parser's words. */
export function parseYaml(path: string, text: string, options: SchemaOptions = {}): unknown {
  try {
    return parse(text, { ...yamlOptions, ...options, maxAliasCount: maxAliases });
  } catch (error) {
    throw refusedFile(path, (error as Error).message.split('\n')[0]?.replace(/:$/, '') ?? 'is no YAML');
  }
}
