/** pino: JSON lines when nobody watches, pretty ones on a terminal; always to stderr. */
import { destination, pino, stdTimeFunctions, type Logger } from 'pino';

export async function createLogger(name: string, level: string): Promise<Logger> {
  const options = {
    name,
    level: process.env['INRO_LOG_LEVEL'] ?? level,
    timestamp: stdTimeFunctions.isoTime,
  };
  if (process.stderr.isTTY !== true) return pino(options, destination({ fd: 2, sync: true }));
  const { default: pretty } = await import('pino-pretty');
  return pino(
    options,
    pretty({ destination: 2, sync: true, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss.l' }),
  );
}
