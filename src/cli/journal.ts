/**
 * The log of a service in systemd's journal, with fields that journalctl finds: `journalctl INRO_SECRET=...`
 * (systemd.journal-fields(7); the datagram's format is systemd.io/JOURNAL_NATIVE_PROTOCOL).
 */
import { fstatSync, writeSync } from 'node:fs';
import { addon } from '../system/addon.js';

const socket = '/run/systemd/journal/socket';

/** pino's levels, and syslog(3)'s. */
const priorities: readonly (readonly [level: number, priority: number])[] = [
  [60, 2],
  [50, 3],
  [40, 4],
  [30, 6],
  [0, 7],
];

/** Fields of a log line that become fields of the journal under their own names, INRO_TASK and so on. */
const named = ['task', 'service', 'secret', 'node', 'cluster', 'manager', 'version', 'generation', 'code'];
/** Said by the journal itself, or in words. */
const known = new Set(['level', 'time', 'pid', 'hostname', 'name', 'msg', 'err', 'remedy', ...named]);

type Line = Record<string, unknown> & { level: number; name?: string; msg?: string };

/** Where standard error is the journal (JOURNAL_STREAM, systemd.exec(5)); undefined elsewhere. */
export function journalStream(
  stream = process.env['JOURNAL_STREAM'],
): { write(line: string): void } | undefined {
  if (stream === undefined) return undefined;
  const { dev, ino } = fstatSync(2);
  if (stream !== `${dev}:${ino}`) return undefined;
  return {
    write(line) {
      const failed = addon().sendDatagram(socket, journalEntry(JSON.parse(line) as Line)) !== 0;
      if (failed) writeSync(2, line); // too large for a datagram, or no journal at this moment
    },
  };
}

export function journalEntry(line: Line): Uint8Array {
  const err = (line['err'] ?? {}) as { message?: string; code?: string; stack?: string };
  const rest = Object.entries(line).filter(([key]) => !known.has(key));
  const details = rest.map(([key, value]) => `${key}=${text(value)}`).join(' ');
  const words = [line.msg, err.message, line['remedy'], details === '' ? undefined : `(${details})`];
  const fields: [string, unknown][] = [
    [
      'MESSAGE',
      words
        .filter((part) => part !== undefined && part !== '')
        .join(': ')
        .replace(/: \(/, ' ('),
    ],
    ['PRIORITY', priorities.find(([level]) => line.level >= level)?.[1] ?? 7],
    ['SYSLOG_IDENTIFIER', 'inro'],
    ['INRO_PART', line.name],
    ...named.map((key): [string, unknown] => [`INRO_${key.toUpperCase()}`, line[key]]),
    ['INRO_ERROR', err.code],
    ['INRO_STACK', err.code === 'internal' ? err.stack : undefined],
  ];
  return Buffer.concat(
    fields.flatMap(([name, value]) => (value === undefined ? [] : field(name, text(value)))),
  );
}

/** `NAME=value`, or where that has lines of its own the name, its length in 8 bytes, and the value. */
function field(name: string, value: string): Uint8Array[] {
  const bytes = Buffer.from(value);
  if (!value.includes('\n')) return [Buffer.from(`${name}=`), bytes, Buffer.from('\n')];
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return [Buffer.from(`${name}\n`), length, bytes, Buffer.from('\n')];
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}
