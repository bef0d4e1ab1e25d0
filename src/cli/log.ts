/** pino: JSON lines when nobody watches, pretty ones on a terminal; always to stderr. */
import { destination, levels, pino, stdTimeFunctions, type Logger } from 'pino';
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';

export async function createLogger(name: string, level: string): Promise<Logger> {
  const wanted = process.env['INRO_LOG_LEVEL'] ?? level;
  if (wanted !== 'silent' && !Object.hasOwn(levels.values, wanted)) {
    const remedy = `use ${Object.keys(levels.values).join(', ')} or silent`;
    throw new InroError('bad_input', `INRO_LOG_LEVEL ${quoted(wanted)} is not a log level`, { remedy });
  }
  const options = {
    name,
    level: wanted,
    timestamp: stdTimeFunctions.isoTime,
  };
  if (process.stderr.isTTY !== true)
    return pino(
      options,
      destination({ fd: 2, sync: true }).on('error', () => undefined),
    ); // nobody reads it any more
  const { default: pretty } = await import('pino-pretty');
  return pino(
    options,
    pretty({ destination: 2, sync: true, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss.l' }),
  );
}
