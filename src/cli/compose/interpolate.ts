/**
 * Variables in values, as Compose has them (compose-spec, 12-interpolation): `$NAME`, `${NAME}`, and with `:-`, `-`, `:?`, `?`, `:+`,
 * `+` what stands for it; these nest. `$$` is a `$`, and a `$` before anything else is itself.
 */
import { InroError } from '../../model/error.js';
import { quoted } from '../../model/name.js';

export interface Variables {
  get(name: string): string | undefined;
  /** One that is not set stands for nothing. */
  missing(name: string): void;
}

const name = /^[_a-zA-Z][_a-zA-Z0-9]*/;

/** @throws bad_input for what is no expression, and for a variable that must be set. */
export function interpolate(text: string, variables: Variables): string {
  let out = '';
  for (let at = 0; at < text.length;) {
    const next = text.indexOf('$', at);
    if (next < 0) return out + text.slice(at);
    out += text.slice(at, next);
    const behind = text.slice(next + 1);
    const [bare] = name.exec(behind) ?? [];
    if (behind.startsWith('{')) {
      const end = closing(behind);
      out += braced(behind.slice(1, end), variables);
      at = next + 2 + end;
    } else if (bare !== undefined) {
      out += valueOf(bare, variables);
      at = next + 1 + bare.length;
    } else {
      out += '$';
      at = next + (behind.startsWith('$') ? 2 : 1);
    }
  }
  return out;
}

/** Values of a whole tree; keys stay as they are. */
export function interpolateAll(
  value: unknown,
  variables: Variables,
  refuse: (place: string, error: InroError) => void,
  place: readonly string[] = [],
): unknown {
  const inner = (one: unknown, key: string): unknown =>
    interpolateAll(one, variables, refuse, [...place, key]);
  if (Array.isArray(value)) return value.map((one, index) => inner(one, String(index)));
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, inner(one, key)]));
  if (typeof value !== 'string' || !value.includes('$')) return value;
  try {
    return interpolate(value, variables);
  } catch (error) {
    if (!(error instanceof InroError)) throw error;
    refuse(place.join('.'), error);
    return '';
  }
}

function braced(inside: string, variables: Variables): string {
  const [variable] = name.exec(inside) ?? [];
  const [, operator, operand = ''] = /^(:?[-?+])?([^]*)$/.exec(inside.slice((variable ?? '').length)) ?? [];
  if (variable === undefined || (operator === undefined && operand !== ''))
    throw notUnderstood(`\${${inside}}`);
  if (operator === undefined) return valueOf(variable, variables);
  const value = variables.get(variable);
  const isThere = operator.startsWith(':') ? (value ?? '') !== '' : value !== undefined;
  switch (operator.at(-1)) {
    case '-':
      return isThere ? (value ?? '') : interpolate(operand, variables);
    case '+':
      return isThere ? interpolate(operand, variables) : '';
    default:
      if (isThere) return value ?? '';
      throw new InroError(
        'bad_input',
        `variable ${variable} must be set${operand === '' ? '' : `: ${interpolate(operand, variables)}`}`,
      );
  }
}

function valueOf(variable: string, variables: Variables): string {
  const value = variables.get(variable);
  if (value === undefined) variables.missing(variable);
  return value ?? '';
}

/** Where the brace that opens the text is closed. @throws bad_input */
function closing(text: string): number {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    if (text.startsWith('$$', at)) at++;
    else if (text[at] === '{' && (at === 0 || text[at - 1] === '$')) depth++;
    else if (text[at] === '}' && --depth === 0) return at;
  }
  throw notUnderstood(`$${text}`);
}

function notUnderstood(expression: string): InroError {
  return new InroError('bad_input', `${quoted(expression)} is not understood`, {
    remedy: 'write ${NAME}, ${NAME:-default}, or $$ for a $',
  });
}
