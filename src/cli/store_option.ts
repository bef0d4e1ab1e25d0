/** Where the distributed store is, and what this manager shows there: from options and manager.yaml. */
import { createSecureContext } from 'node:tls';
import { InroError } from '../model/error.js';
import { parseStoreUrl } from '../model/store_url.js';
import type { EtcdTarget } from '../store/etcd_client.js';
import { parseFile, readFileIfThere } from '../system/files.js';

export interface StoreOptions {
  store?: string | undefined;
  /** Paths of PEM files. */
  storeCa?: string | undefined;
  storeCert?: string | undefined;
  storeKey?: string | undefined;
}

/** @returns undefined where no distributed store is named. @throws bad_input. */
export function distributedStore({
  store,
  storeCa,
  storeCert,
  storeKey,
}: StoreOptions): { etcd: EtcdTarget; prefix: string } | undefined {
  if (store === undefined) {
    if (storeCa === undefined && storeCert === undefined && storeKey === undefined) return undefined;
    throw new InroError('bad_input', 'certificates are given for a store that is not', {
      remedy: 'say where it is: --store etcd://HOST:2379/inro; or leave --store-ca, -cert and -key out',
    });
  }
  const { endpoints, prefix } = parseStoreUrl(store);
  if ((storeCert === undefined) !== (storeKey === undefined))
    throw new InroError('bad_input', "etcd's client certificate is given without its other half", {
      remedy: 'give both, --store-cert FILE and --store-key FILE',
    });
  const read = (path: string | undefined, parse: (text: string) => unknown): Buffer | null => {
    if (path === undefined) return null;
    const text = readFileIfThere(path);
    if (text === undefined)
      throw new InroError('bad_input', `the file ${path} is not there`, {
        remedy: 'give PEM files that are there with --store-ca, --store-cert and --store-key',
      });
    parseFile(path, text, parse, 'give a PEM file');
    return Buffer.from(text);
  };
  // Others than ours: that they are PEM is all that can be said of them here.
  const isPem = (text: string): void => {
    if (!/-----BEGIN CERTIFICATE-----/.test(text))
      throw new InroError('bad_certificate', 'it has no certificate in PEM');
  };
  const [ca, key, cert] = [read(storeCa, isPem), read(storeKey, () => undefined), read(storeCert, isPem)];
  try {
    createSecureContext({ ...(ca && { ca }), ...(key && { key }), ...(cert && { cert }) });
    return { etcd: { endpoints, certificates: { ca, key, cert } }, prefix };
  } catch (cause) {
    throw new InroError(
      'bad_input',
      `the certificates for etcd cannot be used: ${(cause as Error).message}`,
      {
        remedy: 'check --store-ca, --store-cert and --store-key: PEM, and the key of that certificate',
        cause,
      },
    );
  }
}
