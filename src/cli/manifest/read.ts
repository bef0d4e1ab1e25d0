/** What `inro apply -f` is given: a file of its own, or manifests of Kubernetes Secrets, whose values lie in the arena until the end. */
import type { Plaintext } from '../../crypto/plaintext.js';
import { InroError } from '../../model/error.js';
import { addon } from '../../system/addon.js';
import { wantedOf, type Wanted } from '../apply/file.js';
import { refusedFile } from '../apply/text.js';
import { Refusals } from '../compose/refusals.js';
import { openArenas } from '../value_arenas.js';
import { readInput } from '../value_input.js';
import { secretsOf } from './secrets.js';
import { Source } from './source.js';

const maxFileBytes = 1024 * 1024;
/** A Secret of 1 MiB in base64, and something. */
const maxManifestBytes = 1.5 * 1024 * 1024;
/** The file while it grows, or the file and a value twice. */
const arenaBytes = 3 * maxManifestBytes;

export interface Input {
  wanted: Wanted;
  /** Whatever becomes of it: its values are gone then. */
  wipe: () => void;
}

/** @param path `-` for standard input. @throws bad_input */
export function readApplied(path: string): Input {
  addon().forbidDumps();
  const { arena, larger } = openArenas(arenaBytes);
  const { value: whole, home } = readInput(path, arena, larger, maxManifestBytes);
  const wipe = (): void => void whole.wipe();
  try {
    const source = new Source(whole);
    if (!isManifest(source, whole)) {
      const text = textOf(path, whole);
      wipe();
      return { wanted: wantedOf(path, text), wipe };
    }
    const refusals = new Refusals();
    const secrets = source.documents.flatMap((document, at) => {
      const place = `document ${at + 1}`;
      const flaw = source.flaw(document);
      if (flaw !== undefined) refusals.add(place, flaw);
      if (flaw !== undefined || source.isNull(document.contents)) return [];
      return secretsOf({ source, refusals, arena: home }, document.contents, place);
    });
    const names = new Map<string, string>();
    for (const { name, value } of secrets) {
      const other = names.get(name);
      if (other !== undefined) refusals.add(value?.from ?? '', `is called ${name}, as ${other} is`);
      names.set(name, value?.from ?? '');
    }
    refusals.check(path);
    return { wanted: { secrets, services: [] }, wipe };
  } catch (error) {
    wipe();
    throw error;
  }
}

/** By a key at the top of any document; where a parser sees no documents, by the word itself. */
function isManifest(source: Source, whole: Plaintext): boolean {
  if (source.documents.some((document) => document.errors.length > 0))
    return Buffer.from(whole.piece().buffer, whole.piece().skip).includes('apiVersion');
  return source.documents.some(({ contents }) =>
    source.entries(contents)?.some(({ key }) => key === 'apiVersion' || key === 'kind'),
  );
}

function textOf(path: string, whole: Plaintext): string {
  if (whole.size > maxFileBytes) throw refusedFile(path, 'is larger than 1 MiB');
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(whole.expose());
  } catch (cause) {
    throw new InroError('bad_input', refusedFile(path, 'is no UTF-8').message, { cause });
  }
}
