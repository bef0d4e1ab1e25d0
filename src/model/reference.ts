/** A service's use of a secret: which file it becomes, and for whom. Docker's `--secret` syntax. */
import { InroError } from './error.js';
import { limits } from './limits.js';
import { checkName, hasControl, quoted } from './name.js';
import { canonicalOnChange } from './on_change.js';
import { parseVersionedName } from './versioned_name.js';

export interface Reference {
  /** The secret's name when it comes from an operator; the manager resolves it to an id. */
  source: string;
  /** This version and no other; 0: the current one. */
  version: number;
  /** The file's name in the service's directory. */
  target: string;
  /** A number, or a user's name that the node resolves. */
  uid: string;
  gid: string;
  /** Permission bits, 0 to 0o777. */
  mode: number;
  /** May be mapped, spliced, sent by sendfile(2): the kernel then keeps pages of it until the wipe, which zeroes them. */
  mmap: boolean;
  /** What is done when the file is new or has a new value (on_change.ts); '' as the service says. */
  onChange: string;
}

const defaultMode = 0o444;

/**
 * Parses `NAME[@VERSION]` or `source=NAME[@VERSION][,target=FILE][,uid=U][,gid=G][,mode=OCTAL][,mmap][,on-change=ACTION]`.
 * `mode` is octal with or without a leading 0 (Docker reads `400` as decimal, a known trap).
 * @throws bad_input naming the part that is wrong.
 */
export function parseReference(text: string): Reference {
  const fields = text.includes('=') || text.includes(',') ? parseFields(text) : new Map([['source', text]]);
  const source = fields.get('source');
  if (source === undefined) {
    throw new InroError('bad_input', `secret reference ${quoted(text)} has no source`, {
      remedy: 'write --secret NAME or --secret source=NAME,target=FILE,uid=0,gid=0,mode=0444',
    });
  }
  const { name, version = 0 } = source.includes('@') ? parseVersionedName(source) : { name: source };
  return checkReference({
    source: checkName('secret', name),
    version,
    target: fields.get('target') ?? name,
    uid: fields.get('uid') ?? '0',
    gid: fields.get('gid') ?? '0',
    mode: fields.has('mode') ? parseMode(fields.get('mode') as string) : defaultMode,
    mmap: parseFlag('mmap', fields.get('mmap') ?? 'false'),
    onChange: canonicalOnChange(fields.get('on-change') ?? ''),
  });
}

/** @throws bad_input when target, owner, group or mode cannot be shown by a node. */
export function checkReference<R extends Omit<Reference, 'source' | 'version' | 'mmap' | 'onChange'>>(
  reference: R,
): R {
  checkTarget(reference.target);
  checkOwner('uid', reference.uid);
  checkOwner('gid', reference.gid);
  if (!Number.isInteger(reference.mode) || reference.mode < 0 || reference.mode > 0o777) {
    throw new InroError('bad_input', `mode ${reference.mode.toString(8)} is not between 0 and 777`, {
      remedy: 'use permission bits only, in octal, such as 0440; set-id and sticky bits mean nothing here',
    });
  }
  return reference;
}

/** @throws bad_input when two references of one service write the same file. */
export function checkTargetsDiffer(references: readonly { target: string; source: string }[]): void {
  const sources = new Map<string, string>();
  for (const { target, source } of references) {
    const other = sources.get(target);
    if (other !== undefined) {
      throw new InroError(
        'bad_input',
        `secrets ${quoted(other)} and ${quoted(source)} have one target ${quoted(target)}`,
        {
          remedy: 'give one of them another file name: --secret source=NAME,target=FILE',
        },
      );
    }
    sources.set(target, source);
  }
}

/** @throws bad_input unless the text is an octal number up to 0777 (an `0o` before it is allowed). */
export function parseMode(text: string): number {
  const digits = text.replace(/^0o/, '');
  if (!/^[0-7]{1,5}$/.test(digits)) {
    throw new InroError('bad_input', `mode ${quoted(text)} is not an octal number`, {
      remedy: 'write it as 0440',
    });
  }
  const mode = Number.parseInt(digits, 8);
  if (mode > 0o777) {
    throw new InroError('bad_input', `mode ${quoted(text)} is not between 0 and 0777`, {
      remedy: 'use permission bits only, in octal, such as 0440; set-id and sticky bits mean nothing here',
    });
  }
  return mode;
}

function parseFlag(name: string, text: string): boolean {
  if (text === 'true') return true;
  if (text === 'false') return false;
  throw new InroError('bad_input', `${name}=${quoted(text)} is neither true nor false`);
}

function parseFields(text: string): Map<string, string> {
  const known = new Set(['source', 'target', 'uid', 'gid', 'mode', 'mmap', 'on-change']);
  const flags = new Set(['mmap']);
  const short = new Map([
    ['src', 'source'],
    ['dst', 'target'],
  ]);
  const fields = new Map<string, string>();
  for (const part of text.split(',')) {
    const at = part.indexOf('=');
    const typed = at < 0 ? part : part.slice(0, at);
    const key = short.get(typed) ?? typed;
    const isWhole = at < 0 ? flags.has(key) : at < part.length - 1;
    if (!known.has(key) || !isWhole) {
      throw new InroError(
        'bad_input',
        `secret reference ${quoted(text)}: ${quoted(part)} is not understood`,
        {
          remedy:
            'the parts are source=, target=, uid=, gid=, mode=, on-change= and mmap, separated by commas',
        },
      );
    }
    if (fields.has(key))
      throw new InroError('bad_input', `secret reference ${quoted(text)} gives ${key} twice`);
    fields.set(key, at < 0 ? 'true' : part.slice(at + 1));
  }
  return fields;
}

function checkTarget(target: string): void {
  const bytes = new TextEncoder().encode(target).length;
  const wrong =
    bytes === 0 ||
    bytes > limits.maxTargetBytes ||
    target.includes('/') ||
    target === '.' ||
    target.startsWith('..') ||
    hasControl(target) ||
    !isWellFormed(target);
  if (wrong) {
    throw new InroError('bad_input', `target ${quoted(target)} is not a file name`, {
      remedy: `use 1 to ${limits.maxTargetBytes} bytes without '/' or control characters, not '.' and not beginning with '..'`,
    });
  }
}

function checkOwner(kind: 'uid' | 'gid', owner: string): void {
  const isNumber = /^[0-9]{1,10}$/.test(owner) && Number(owner) < 0xffffffff;
  const isName = owner.length <= limits.maxOwnerChars && /^[a-zA-Z_][a-zA-Z0-9_.-]*\$?$/.test(owner);
  if (!isNumber && !isName) {
    throw new InroError('bad_input', `${kind} ${quoted(owner)} is neither a number nor a name`, {
      remedy: `write ${kind}=999 or ${kind}=postgres`,
    });
  }
}

// A lone surrogate has no UTF-8 form: two such targets would become one file name.
function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}
