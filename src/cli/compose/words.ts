/** A command as a text: split into words as a shell would, but that no shell reads it. */
import { split } from 'shlex';
import { InroError } from '../../model/error.js';

/** Quoted and escaped pieces. */
const quotedPieces = /\\[^]|'[^']*'|"(?:\\[^]|[^"\\])*"/g;

/** @throws bad_input for what only a shell understands. */
export function wordsOf(text: string): string[] {
  const open = text.replace(quotedPieces, '');
  const shellOnly = /[;&|<>`]|\$\(/.exec(open)?.[0] ?? /\$['"]/.exec(text)?.[0];
  if (shellOnly !== undefined)
    throw new InroError('bad_input', `no shell reads it, and ${shellOnly} is a shell's`, {
      remedy: 'write a list of words, or sh -c with the rest in quotes',
    });
  try {
    return split(text);
  } catch {
    throw new InroError('bad_input', 'a quote is not closed', {
      remedy: 'close it, or write a list of words',
    });
  }
}
