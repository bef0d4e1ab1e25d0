/** Names of systemd units that can be given credentials, as systemd.unit(5) and systemd.exec(5) have them. */
import { InroError } from './error.js';
import { quoted } from './name.js';

/** UNIT_NAME_MAX of systemd, less its end. */
const maxUnitChars = 255;
/** Kinds that run programs. */
const suffixes = ['.service', '.socket', '.mount', '.swap'];
/** Kinds that do not. */
const others = ['.target', '.timer', '.path', '.slice', '.scope', '.device', '.automount'];

/**
 * systemd asks under an address of at most 107 bytes: a zero, up to 16 hex digits, `/unit/`, the unit, `/`, the credential.
 * Under a longer one it cannot ask at all.
 */
const maxAskedChars = 107 - 1 - 16 - '/unit/'.length - '/'.length;

/**
 * The unit's full name: `nginx` is `nginx.service`. An instance (`app@1`) is one unit, a template (`app@`) all its instances.
 * @throws bad_input for what systemd would not take, and for a unit that runs no program.
 */
export function unitName(text: string): string {
  const other = others.find((suffix) => text.endsWith(suffix));
  if (other !== undefined)
    throw new InroError(
      'bad_input',
      `unit ${quoted(text)} runs no program: a ${other.slice(1)} gets no credentials`,
      {
        remedy: `name what runs: a ${suffixes.join(', ')} unit`,
      },
    );
  const name = suffixes.some((suffix) => text.endsWith(suffix)) ? text : `${text}.service`;
  const stem = name.slice(0, name.lastIndexOf('.'));
  if (!/^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\@-]*)?$/.test(stem) || name.length > maxUnitChars)
    throw new InroError('bad_input', `unit name ${quoted(text)} is not valid`, {
      remedy: `use up to ${maxUnitChars} letters, digits and : - _ . \\, as in nginx.service, app@1.service or app@.service`,
    });
  return name;
}

/** `app@.service` for `app@1.service`; undefined for a unit that is no instance. */
export function templateOf(unit: string): string | undefined {
  const [, prefix, suffix] = /^([^@]+@).+(\.[a-z]+)$/.exec(unit) ?? [];
  return prefix === undefined || suffix === undefined ? undefined : prefix + suffix;
}

/** @throws bad_input for a file that systemd could not ask for, because the names are too long together. */
export function checkAskable(unit: string, targets: readonly string[]): void {
  if (unit === '') return;
  const long = targets.find((target) => unit.length + Buffer.byteLength(target) > maxAskedChars);
  if (long === undefined) return;
  throw new InroError(
    'bad_input',
    `unit ${quoted(unit)} cannot ask for ${quoted(long)}: systemd sends both names in ${maxAskedChars} bytes`,
    { remedy: 'give the secret a shorter file name: --secret source=NAME,target=FILE' },
  );
}
