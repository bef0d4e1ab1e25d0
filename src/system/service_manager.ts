/**
 * The service manager that started this process, where one did (systemd): readiness, status, the watchdog, and the file
 * descriptor store, which outlives this process however it ends (sd_notify(3), sd_pid_notify_with_fds(3)).
 */
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import { addon } from './addon.js';

const settleMs = 10_000;

export interface StoredDescriptor {
  name: string;
  fd: number;
}

export interface ServiceManager {
  /** Handed over at the start. */
  readonly stored: readonly StoredDescriptor[];
  /** It keeps descriptors for this service. */
  readonly stores: boolean;
  /** Within how many ms it wants a sign of life, if it does. */
  readonly watchdogMs: number | undefined;
  ready(status: string): void;
  status(text: string): void;
  stopping(status: string): void;
  alive(): void;
  /** '' or why it could not be told. Kept also when the descriptor reports an error. */
  store(name: string, fd: number): string;
  remove(name: string): void;
  /** Blocks until all of the above has been taken in: '' or why it was not. To be called before a short-lived process ends. */
  settle(): string;
}

/** Undefined where nobody listens: a terminal, a container without systemd. Takes what was stored, once. */
export function serviceManager(env: NodeJS.ProcessEnv = process.env): ServiceManager | undefined {
  const stored = addon().takeStoredDescriptors();
  if (env['NOTIFY_SOCKET'] === undefined) return undefined;
  const tell = (lines: string, fd?: number): string => {
    const errno = addon().notifyServiceManager(lines, fd);
    return errno === 0
      ? ''
      : errno === constants.errno.ENOENT
        ? 'nobody listens'
        : getSystemErrorName(-errno);
  };
  return {
    stored,
    // Told by systemd 254 and newer, by the unit for older ones.
    stores: Number(env['FDSTORE'] ?? 0) > 0,
    watchdogMs: watchdog(env),
    ready: (status) => void tell(`READY=1\nSTATUS=${oneLine(status)}\n`),
    status: (text) => void tell(`STATUS=${oneLine(text)}\n`),
    stopping: (status) => void tell(`STOPPING=1\nSTATUS=${oneLine(status)}\n`),
    alive: () => void tell('WATCHDOG=1\n'),
    store: (name, fd) => tell(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0\n`, fd),
    remove: (name) => void tell(`FDSTOREREMOVE=1\nFDNAME=${name}\n`),
    settle: () => {
      const errno = addon().awaitServiceManager(settleMs);
      return errno === 0 ? '' : getSystemErrorName(-errno);
    },
  };
}

/** WATCHDOG_USEC counts for the process that it names. */
function watchdog(env: NodeJS.ProcessEnv): number | undefined {
  const us = Number(env['WATCHDOG_USEC'] ?? 0);
  const isForUs = env['WATCHDOG_PID'] === undefined || Number(env['WATCHDOG_PID']) === process.pid;
  return isForUs && us > 0 ? us / 1000 : undefined;
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ');
}
