/** `NAME@VERSION`: one version of a secret, as an operator types it. */
import { InroError } from './error.js';
import { limits } from './limits.js';
import { quoted } from './name.js';

export interface VersionedName {
  /** A name, an id or the beginning of one: what is allowed there, whoever looks it up says. */
  name: string;
  /** undefined: the current one. */
  version: number | undefined;
}

/** @throws bad_input when there is no name before the `@`, or no whole number from 1 behind it. */
export function parseVersionedName(text: string): VersionedName {
  const at = text.lastIndexOf('@');
  const name = at < 0 ? text : text.slice(0, at);
  if (name === '' || name.includes('@')) {
    throw new InroError('bad_input', `${quoted(text)} names no version of a secret`, { remedy });
  }
  if (at < 0) return { name, version: undefined };
  const digits = text.slice(at + 1);
  const version = Number(digits);
  if (!/^[1-9][0-9]*$/.test(digits) || version > limits.maxVersion) {
    throw new InroError(
      'bad_input',
      `version ${quoted(digits)} in ${quoted(text)} is not a whole number from 1`,
      {
        remedy,
      },
    );
  }
  return { name, version };
}

const remedy = 'write NAME for the current version, or NAME@VERSION, such as db_password@2';
