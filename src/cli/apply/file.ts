/**
 * What `inro apply` reads: secrets and services as they are to be. Values are never in it, only where they come from. What is not
 * understood is refused by its name.
 */
import { resolve } from 'node:path';
import { z } from 'zod';
import type { Arena } from '../../crypto/arena.js';
import type { Plaintext } from '../../crypto/plaintext.js';
import { restartConditions } from '../../model/container.js';
import { limits } from '../../model/limits.js';
import { checkName } from '../../model/name.js';
import { failureActions, updateOrders } from '../../model/update_policy.js';
import { folderOf, refusedFile } from './text.js';
import { parseYaml } from './yaml.js';

const text = z.union([z.string(), z.number(), z.boolean()]).transform(String);
const texts = z.record(z.string(), text);
const count = z.int().min(0).max(limits.maxReplicas);
const version = z.int().min(1).max(limits.maxVersion);
/** A number is one of seconds. */
const time = z.union([z.string(), z.number().min(0)]);
const reference = z.union([
  z.string(),
  z.strictObject({
    source: z.string(),
    version: version.optional(),
    target: z.string().optional(),
    uid: text.optional(),
    gid: text.optional(),
    mode: z.union([z.string(), z.int()]).optional(),
    mmap: z.boolean().optional(),
    onChange: z.string().optional(),
  }),
]);
const mount = z.union([
  z.string(),
  z.strictObject({
    type: z.string().optional(),
    source: z.string().optional(),
    target: z.string(),
    readOnly: z.boolean().optional(),
  }),
]);
const secret = z.strictObject({
  file: z.string().optional(),
  fd: z.int().min(0).max(1_000_000).optional(),
  generate: z.string().optional(),
  version: version.optional(),
  labels: texts.optional(),
  lease: z.string().optional(),
  expires: z.string().optional(),
  withdraw: z.boolean().optional(),
});
const update = z.strictObject({
  parallelism: count.optional(),
  delay: time.optional(),
  order: z.enum(updateOrders).optional(),
  failureAction: z.enum(failureActions).optional(),
  monitor: time.optional(),
  maxFailureRatio: z.number().min(0).max(1).optional(),
});
const service = z.strictObject({
  image: z.string().optional(),
  args: z.array(text).optional(),
  env: texts.optional(),
  user: text.optional(),
  workdir: z.string().optional(),
  network: z.string().optional(),
  mounts: z.array(mount).optional(),
  containerLabels: texts.optional(),
  readOnly: z.boolean().optional(),
  stopSignal: z.string().optional(),
  stopGrace: time.optional(),
  restart: z.enum(restartConditions).optional(),
  mode: z.enum(['replicated', 'global']).optional(),
  replicas: count.optional(),
  maxReplicasPerNode: count.optional(),
  update: update.optional(),
  constraints: z.array(z.string()).optional(),
  labels: texts.optional(),
  secrets: z.array(reference).optional(),
  readers: z.enum(['auto', 'attached', 'any']).optional(),
  onChange: z.string().optional(),
  unit: z.string().optional(),
  until: z.enum(['removed', 'detached']).optional(),
  detachGrace: time.optional(),
});
const whole = z.strictObject({
  secrets: z.record(z.string(), secret.nullable()).optional(),
  services: z.record(z.string(), service.nullable()).optional(),
});

export type WantedSecret = z.infer<typeof secret> & {
  name: string;
  /** It must be there, and is left as it is. */
  external?: true;
  /** Where it stands in the file itself; `from` says so in words. */
  value?: { read: (arena: Arena) => Plaintext; from: string };
};
export type WantedService = z.infer<typeof service> & { name: string };
export type WantedReference = z.infer<typeof reference>;
export type WantedMount = z.infer<typeof mount>;

export interface Wanted {
  secrets: WantedSecret[];
  services: WantedService[];
}

/** @param path where the text is from: paths in it are relative to its folder. @throws bad_input */
export function wantedOf(path: string, text: string): Wanted {
  const parsed = whole.safeParse(parseYaml(path, text) ?? {});
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const place = issue?.path.join('.') ?? '';
    throw refusedFile(path, `${place === '' ? '' : `${place}: `}${issue?.message ?? 'is not understood'}`);
  }
  const folder = folderOf(path);
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
