/**
 * What `inro apply` reads: secrets and services as they are to be. Values are never in it, only where they come from. What is not
 * understood is refused by its name.
 */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { InroError } from '../../model/error.js';
import { limits } from '../../model/limits.js';
import { checkName, quoted } from '../../model/name.js';

const maxFileBytes = 1024 * 1024;

const labels = z.record(z.string(), z.coerce.string());
const reference = z.union([
  z.string(),
  z.strictObject({
    source: z.string(),
    version: z.int().min(1).max(limits.maxVersion).optional(),
    target: z.string().optional(),
    uid: z.coerce.string().optional(),
    gid: z.coerce.string().optional(),
    mode: z.union([z.string(), z.int()]).optional(),
    mmap: z.boolean().optional(),
    onChange: z.string().optional(),
  }),
]);
const secret = z.strictObject({
  file: z.string().optional(),
  fd: z.int().min(0).max(1_000_000).optional(),
  generate: z.string().optional(),
  version: z.int().min(1).max(limits.maxVersion).optional(),
  labels: labels.optional(),
  lease: z.string().optional(),
});
const service = z.strictObject({
  image: z.string().optional(),
  args: z.array(z.coerce.string()).optional(),
  env: labels.optional(),
  user: z.coerce.string().optional(),
  mode: z.enum(['replicated', 'global']).optional(),
  replicas: z.int().min(0).max(limits.maxReplicas).optional(),
  maxReplicasPerNode: z.int().min(0).max(limits.maxReplicas).optional(),
  constraints: z.array(z.string()).optional(),
  labels: labels.optional(),
  secrets: z.array(reference).optional(),
  readers: z.enum(['auto', 'attached', 'any']).optional(),
  onChange: z.string().optional(),
  unit: z.string().optional(),
});
const whole = z.strictObject({
  secrets: z.record(z.string(), secret.nullable()).optional(),
  services: z.record(z.string(), service.nullable()).optional(),
});

export type WantedSecret = z.infer<typeof secret> & { name: string };
export type WantedService = z.infer<typeof service> & { name: string };
export type WantedReference = z.infer<typeof reference>;

export interface Wanted {
  secrets: WantedSecret[];
  services: WantedService[];
}

/** @param path `-` for standard input. Paths in it are relative to its folder. @throws bad_input */
export function readWanted(path: string): Wanted {
  const text = read(path);
  let document: unknown;
  try {
    document = parse(text, { maxAliasCount: 32 });
  } catch (error) {
    throw refused(path, (error as Error).message.split('\n')[0] ?? 'is no YAML');
  }
  const parsed = whole.safeParse(document ?? {});
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const place = issue?.path.join('.') ?? '';
    throw refused(path, `${place === '' ? '' : `${place}: `}${issue?.message ?? 'is not understood'}`);
  }
  const folder = path === '-' ? process.cwd() : dirname(resolve(path));
  const { secrets = {}, services = {} } = parsed.data;
  return {
    secrets: Object.entries(secrets).map(([name, one]) => {
      const { file, ...rest } = one ?? {};
      const wanted = { name: checkName('secret', name), ...rest };
      return file === undefined ? wanted : { ...wanted, file: resolve(folder, file) };
    }),
    services: Object.entries(services).map(([name, one]) => ({ name: checkName('service', name), ...one })),
  };
}

function read(path: string): string {
  try {
    const bytes = readFileSync(path === '-' ? 0 : path);
    if (bytes.length > maxFileBytes) throw refused(path, 'is larger than 1 MiB');
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    if (error instanceof InroError) throw error;
    throw refused(path, `cannot be read: ${(error as Error).message}`);
  }
}

function refused(path: string, why: string): InroError {
  return new InroError('bad_input', `${quoted(path)}: ${why}`, {
    remedy: 'docs/configuration.md has the keys, with an example',
  });
}
