/** The files of a manager's folder that nobody else may read; they may be wrapped (crypto/at_rest.ts). */
import { join } from 'node:path';

const names = ['ca.key', 'ca-next.key', 'manager.key', 'sealing.key', 'data.key', 'data-next.key'];
/** Of a manager that shares its store with others; see distributed.ts. */
const distributed = ['store.key', 'exchange.key'];

export function privateFilesIn(folder: string): string[] {
  return [...names, ...distributed].map((name) => join(folder, name));
}
