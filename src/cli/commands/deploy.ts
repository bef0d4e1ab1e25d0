/** inro deploy */
import { InroError } from '../../model/error.js';
import { readCompose } from '../compose/read.js';
import { warn } from '../print.js';
import { carryOut, type ApplyOptions } from './apply.js';

interface DeployOptions extends Omit<ApplyOptions, 'file'> {
  file?: string;
  composeFile?: string;
}

/** @throws bad_input, not_found, conflict (then nothing was changed), pending. */
export async function deployCommand(name: string | undefined, options: DeployOptions): Promise<void> {
  const file = options.file ?? options.composeFile;
  if (file === undefined)
    throw new InroError('bad_input', 'no Compose file is named', {
      remedy: "such as inro deploy -f compose.yaml; '-' for standard input",
    });
  const environment = (variable: string): string | undefined => process.env[variable];
  await carryOut(readCompose(file, { name, environment, warn }), { ...options, file });
}
