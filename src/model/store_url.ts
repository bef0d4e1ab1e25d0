/** A distributed store as an operator writes it: `etcd://HOST:PORT[,HOST:PORT]...[/PREFIX]`. */
import { InroError } from './error.js';
import { quoted } from './name.js';

export interface StoreUrl {
  /** HOST:PORT of each member. */
  endpoints: string[];
  /** What is before every key, with a slash at both ends. */
  prefix: string;
}

const scheme = 'etcd://';
const usualPrefix = 'inro';
const usualPort = 2379;
const maxEndpoints = 16;

/** @throws bad_input. */
export function parseStoreUrl(text: string): StoreUrl {
  if (!text.startsWith(scheme)) throw wrong(text, 'does not begin with etcd://');
  const [hosts = '', ...path] = text.slice(scheme.length).split('/');
  const prefix = path.join('/').replace(/\/$/, '') || usualPrefix;
  if (!/^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/.test(prefix))
    throw wrong(text, `${quoted(prefix)} is no prefix: letters, digits, . _ - between slashes`);
  const endpoints = hosts.split(',').map((host) => {
    const match = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?$/.exec(host);
    const port = Number(match?.[2] ?? usualPort);
    if (match?.[1] === undefined || port < 1 || port > 65_535)
      throw wrong(text, host === '' ? 'names no host' : `${quoted(host)} is not HOST:PORT`);
    return `${match[1]}:${port}`;
  });
  if (endpoints.length > maxEndpoints) throw wrong(text, `names more than ${maxEndpoints} members`);
  return { endpoints: [...new Set(endpoints)], prefix: `/${prefix}/` };
}

function wrong(text: string, what: string): InroError {
  return new InroError('bad_input', `store ${quoted(text)}: ${what}`, {
    remedy: 'write etcd://HOST:2379,HOST:2379,HOST:2379/inro',
  });
}
