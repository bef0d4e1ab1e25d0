/** A CA outside of inro, as an operator writes it: `protocol=cfssl,url=https://HOST:PORT[,cacert=FILE]...`. */
import { InroError } from './error.js';
import { quoted } from './name.js';

export interface ExternalCaSpec {
  protocol: 'cfssl';
  /** https; without a path it gets the one of cfssl's call. */
  url: string;
  /** Path of the CA that signs, and those above it up to the root (PEM). */
  cacert?: string;
  /** Path of the roots by which the URL's own certificate is verified (PEM); those of `cacert` if not given. */
  tlscacert?: string;
  /** Paths of what this manager shows there (PEM). */
  cert?: string;
  key?: string;
}

const fields = ['protocol', 'url', 'cacert', 'tlscacert', 'cert', 'key'] as const;
type Field = (typeof fields)[number];
const signPath = '/api/v1/cfssl/sign';

/** @throws bad_input. */
export function parseExternalCa(text: string): ExternalCaSpec {
  const found = new Map<Field, string>();
  for (const part of text.split(',')) {
    const at = part.indexOf('=');
    const field = fields.find((name) => name === part.slice(0, at));
    if (field === undefined || at === part.length - 1)
      throw wrong(text, `${quoted(part)} is not understood`, `the parts are ${fields.join('=, ')}=`);
    if (found.has(field)) throw wrong(text, `${field} is given twice`, 'give each part once');
    found.set(field, part.slice(at + 1));
  }
  const protocol = found.get('protocol');
  if (protocol !== 'cfssl') {
    const what = protocol === undefined ? 'names no protocol' : `protocol ${quoted(protocol)} is not known`;
    throw wrong(text, what, 'write protocol=cfssl, the one that there is');
  }
  const [cert, key] = [found.get('cert'), found.get('key')];
  if ((cert === undefined) !== (key === undefined))
    throw wrong(text, `${cert === undefined ? 'key' : 'cert'} is given without its other half`, pair);
  const rest = Object.fromEntries([...found].filter(([name]) => name !== 'protocol' && name !== 'url'));
  return { ...rest, protocol, url: checkedUrl(text, found.get('url')) };
}

function checkedUrl(text: string, typed: string | undefined): string {
  const remedy = 'write url=https://HOST:PORT';
  if (typed === undefined) throw wrong(text, 'names no url', remedy);
  const url = URL.canParse(typed) ? new URL(typed) : undefined;
  if (url?.protocol !== 'https:') throw wrong(text, `${quoted(typed)} is not an https URL`, remedy);
  // A password in it would stand in logs and in the process list.
  if (url.username !== '' || url.password !== '' || url.hash !== '')
    throw wrong(text, 'the URL has more in it than host, port and path', `${remedy}; ${pair}`);
  if (url.pathname === '/') url.pathname = signPath;
  return url.href;
}

const pair = 'a client certificate is cert=FILE,key=FILE';

function wrong(text: string, what: string, remedy: string): InroError {
  return new InroError('bad_input', `external CA ${quoted(text)}: ${what}`, { remedy });
}
