/**
 * The keys of agent.yaml and manager.yaml (docs/configuration.md). Each is optional: what is missing comes from the command
 * line or from its default. A check's message says what must stand there.
 */
import { isAbsolute } from 'node:path';
import { z } from 'zod';
import { agentLimits } from '../agent/limits.js';
import { driverNames } from '../agent/mount/drivers.js';
import { parseExternalCa } from '../model/external_ca.js';
import { checkName, hasControl } from '../model/name.js';
import { parseStoreUrl } from '../model/store_url.js';
import { checkAddress } from '../rpc/address.js';
import { logLevels } from './log_level.js';

// A relative path would depend on the folder that a service manager starts us in, and no shell expands a ~ here.
const path = textThat((text) => isAbsolute(text) && !hasControl(text), 'an absolute path');
const address = textThat(isAddress, 'HOST:PORT');
const managers = `a list of 1 to ${agentLimits.maxManagers} addresses HOST:PORT`;
const hookMap = 'NAME: [PROGRAM, ARG...]';
const hookName = textThat(isHookName, hookMap);
const hookCommand = z
  .array(
    textThat((text) => !text.includes('\0'), hookMap),
    hookMap,
  )
  .min(1, hookMap)
  .max(64, hookMap)
  .refine(
    ([program = '']) => isAbsolute(program),
    'a list whose first item is the absolute path of a program',
  );
const credential = textThat(
  (text) => /^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$/.test(text),
  'the name of a credential',
);
const externalCas = 'a list of protocol=cfssl,url=https://HOST:PORT,cacert=FILE with absolute paths';
const externalCa = textThat(isExternalCa, externalCas);
const logLevel = z.enum(logLevels, `one of ${logLevels.join(', ')}`);

export const agentKeys = z.strictObject({
  state: path.optional(),
  mount: path.optional(),
  socket: path.optional(),
  credentials: path.optional(),
  driver: z.enum(driverNames, driverNames.join(' or ')).optional(),
  docker: textThat(
    (text) => text === 'off' || (isAbsolute(text) && !hasControl(text)),
    'the absolute path of a container engine’s socket, or off',
  ).optional(),
  managers: z.array(address, managers).min(1, managers).max(agentLimits.maxManagers, managers).optional(),
  keyCredential: credential.optional(),
  hooks: z.record(hookName, hookCommand, hookMap).optional(),
  logLevel: logLevel.optional(),
});

export const managerKeys = z.strictObject({
  state: path.optional(),
  listen: address.optional(),
  socket: path.optional(),
  caCert: path.optional(),
  caKey: path.optional(),
  externalCa: z.array(externalCa, externalCas).min(1, externalCas).max(16, externalCas).optional(),
  store: textThat(isStoreUrl, 'etcd://HOST:PORT,HOST:PORT/PREFIX').optional(),
  storeCa: path.optional(),
  storeCert: path.optional(),
  storeKey: path.optional(),
  keyCredential: credential.optional(),
  autolock: z.boolean('true or false').optional(),
  unlockKey: textThat(
    (text) => isAbsolute(text) || /^@[A-Za-z0-9][A-Za-z0-9._-]{0,254}$/.test(text),
    'an absolute path, or @NAME for a credential',
  ).optional(),
  logLevel: logLevel.optional(),
});

export type AgentConfig = z.infer<typeof agentKeys>;
export type ManagerConfig = z.infer<typeof managerKeys>;

function textThat(holds: (text: string) => boolean, expected: string) {
  return z.custom<string>((value) => typeof value === 'string' && holds(value), expected);
}

function isHookName(text: string): boolean {
  try {
    checkName('hook', text);
    return true;
  } catch {
    return false;
  }
}

function isExternalCa(text: string): boolean {
  try {
    const { protocol: _, url: __, ...files } = parseExternalCa(text);
    return Object.values(files).every((file: string) => isAbsolute(file));
  } catch {
    return false;
  }
}

function isStoreUrl(text: string): boolean {
  try {
    parseStoreUrl(text);
    return true;
  } catch {
    return false;
  }
}

function isAddress(text: string): boolean {
  try {
    checkAddress(text);
    return true;
  } catch {
    return false;
  }
}
