import { createRequire } from 'node:module';

/** inro's own version, from package.json. */
export const { version } = createRequire(import.meta.url)('../../../package.json') as { version: string };
