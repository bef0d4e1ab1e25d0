/** pino: JSON lines when nobody watches, pretty ones on a terminal, both to stderr; entries with fields in systemd's journal. */
import { destination, pino, stdTimeFunctions, type Logger } from 'pino';
import { isLogLevel, logLevels, type LogLevel } from '../config/log_level.js';
import { InroError } from '../model/error.js';
import { quoted } from '../model/name.js';
import { journalStream } from './journal.js';

export async function createLogger(name: string, level: LogLevel): Promise<Logger> {
  const options = {
    name,
    level: levelInEnvironment() ?? level,
    timestamp: stdTimeFunctions.isoTime,
  };
  const journal = journalStream();
  if (journal !== undefined) return pino(options, journal);
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

/** INRO_LOG_LEVEL, which wins over every other word on the level. @throws bad_input when it is none. */
export function levelInEnvironment(): LogLevel | undefined {
  const level = process.env['INRO_LOG_LEVEL'];
  if (level === undefined || isLogLevel(level)) return level;
  throw new InroError('bad_input', `INRO_LOG_LEVEL ${quoted(level)} is not a log level`, {
    remedy: `use ${logLevels.slice(0, -1).join(', ')} or silent`,
  });
}
