/** The settings of an agent or a manager as its file has them; also later, when a running one is told to read it again. */
import type { z } from 'zod';
import { InroError } from '../model/error.js';
import { readConfigText } from './file.js';
import { agentKeys, managerKeys, type AgentConfig, type ManagerConfig } from './keys.js';
import { parseConfig } from './parse.js';

/** @param optional a file that is not there is an empty one. @throws bad_config. */
export function readAgentConfig(path: string, optional = false): AgentConfig {
  return readConfig(path, agentKeys, optional);
}

/** @param optional a file that is not there is an empty one. @throws bad_config. */
export function readManagerConfig(path: string, optional = false): ManagerConfig {
  return readConfig(path, managerKeys, optional);
}

function readConfig<K extends z.ZodObject>(path: string, keys: K, optional: boolean): z.infer<K> {
  const text = readConfigText(path);
  if (text !== undefined) return parseConfig(text, path, keys);
  if (optional) return keys.parse({});
  throw new InroError('bad_config', `the configuration file ${path} is not there`, {
    remedy: 'name one that is with --config FILE, or leave the option out',
  });
}
