/**
 * Looking for values where they must not be: in all readable memory of a process, in folders, in logs. Values
 * are markers: their start, middle and end begin with one text that nothing else has, so that one pass over
 * the memory finds every piece of every value. Whoever scans holds the markers, so nobody scans himself.
 */
import { randomBytes } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync } from 'node:fs';
import { open, readFile, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

const windowBytes = 16;
const prefixBytes = 8;
const chunkBytes = 4 << 20;
/** The buffers for requests and replies lie beside each other, and are smaller together. */
const maxBufferBytes = 1 << 20;
/** Larger ones are a sanitizer's shadow of the whole address space. */
const maxMappingBytes = 2 ** 30;
/** A marker in its longest form. */
const overlapBytes = 2 * windowBytes;

export interface Finding {
  /** Which value, and where in it; `?` when only the common beginning is there. */
  marker: string;
  form: 'plain' | 'utf-16' | 'hex';
  /** A mapping's name and address, a file, or a log. */
  place: string;
}

export class Markers {
  // Printable, so that a log would show them as they are.
  readonly #prefix = `m${randomBytes(6)
    .toString('base64url')
    .slice(0, prefixBytes - 1)}`;
  readonly #names = new Map<string, string>();

  /** A value of this size (16 bytes or more) of which each copy can be found. */
  value(name: string, bytes: number): Buffer {
    const value = Buffer.from(randomBytes(bytes).toString('base64url').slice(0, bytes));
    const places =
      bytes === windowBytes
        ? { whole: 0 }
        : { start: 0, middle: (bytes - windowBytes) >> 1, end: bytes - windowBytes };
    for (const [place, at] of Object.entries(places)) {
      const unique = randomBytes(6)
        .toString('base64url')
        .slice(0, windowBytes - prefixBytes);
      value.write(this.#prefix + unique, at);
      this.#names.set(unique, `${name} ${place}`);
    }
    return value;
  }

  /** Every piece of a value in these bytes. @param limit findings that begin at or after it are not counted. */
  in(bytes: Buffer, place: (at: number) => string, limit: number = bytes.length): Finding[] {
    const found: Finding[] = [];
    for (const { form, needle, decode } of this.#forms()) {
      for (let at = bytes.indexOf(needle); at >= 0 && at < limit; at = bytes.indexOf(needle, at + 1))
        found.push({ form, place: place(at), marker: this.#names.get(decode(bytes, at)) ?? '?' });
    }
    return found;
  }

  #forms(): { form: Finding['form']; needle: Buffer; decode: (bytes: Buffer, at: number) => string }[] {
    const prefix = this.#prefix;
    const rest = (encoding: BufferEncoding, width: number) => (bytes: Buffer, at: number) => {
      const text = bytes.subarray(at + prefixBytes * width, at + windowBytes * width);
      return encoding === 'hex'
        ? Buffer.from(text.toString('latin1'), 'hex').toString('latin1')
        : text.toString(encoding);
    };
    return [
      { form: 'plain', needle: Buffer.from(prefix), decode: rest('latin1', 1) },
      { form: 'utf-16', needle: Buffer.from(prefix, 'utf16le'), decode: rest('utf16le', 2) },
      { form: 'hex', needle: Buffer.from(Buffer.from(prefix).toString('hex')), decode: rest('hex', 2) },
    ];
  }
}

export interface MemoryScan {
  findings: Finding[];
  scannedBytes: number;
  /** Mappings that could not be read, by name. */
  unreadable: string[];
}

/** All readable mappings of another process, which stands still meanwhile. @throws when it may not be looked at. */
export async function scanMemory(pid: number, markers: Markers): Promise<MemoryScan> {
  if (pid === process.pid) throw new Error('the scanner holds the markers itself');
  process.kill(pid, 'SIGSTOP');
  try {
    await stopped(pid);
    return await scanMappings(pid, await mappings(pid), markers);
  } finally {
    process.kill(pid, 'SIGCONT');
  }
}

/** What of another process's memory was neither read from a file nor is a heap or stack, as fast as can be, while it runs on. */
export async function glanceAtMemory(pid: number, markers: Markers): Promise<Finding[]> {
  const isBuffer = ({ from, to, name }: Mapping) =>
    name === '[anonymous] rw-p' && to - from <= maxBufferBytes;
  return (await scanMappings(pid, (await mappings(pid)).filter(isBuffer), markers)).findings;
}

/**
 * What every process of this machine but this one can change, while it runs on. Those that are not ours are only looked
 * at, and may end meanwhile.
 */
export async function scanOthers(markers: Markers): Promise<MemoryScan & { processes: number }> {
  const all = { ...emptyScan(), processes: 0 };
  for (const pid of readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0 && pid !== process.pid)) {
    try {
      const writable = (await mappings(pid)).filter(
        ({ name, from, to }) => / rw/.test(name) && to - from <= maxMappingBytes,
      );
      if (writable.length === 0) continue; // a thread of the kernel
      const scan = await scanMappings(pid, writable, markers);
      all.findings.push(...scan.findings.map((one) => ({ ...one, place: `process ${pid}: ${one.place}` })));
      all.scannedBytes += scan.scannedBytes;
      all.processes++;
    } catch (error) {
      if (!['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? ''))
        throw error;
    }
  }
  return all;
}

async function scanMappings(pid: number, all: readonly Mapping[], markers: Markers): Promise<MemoryScan> {
  const memory = await open(`/proc/${pid}/mem`, 'r');
  try {
    const scan = emptyScan();
    for (const mapping of all) await scanMapping(memory, mapping, markers, scan);
    return scan;
  } finally {
    await memory.close();
  }
}

function emptyScan(): MemoryScan {
  return { findings: [], scannedBytes: 0, unreadable: [] };
}

interface Mapping {
  from: number;
  to: number;
  name: string;
}

async function mappings(pid: number): Promise<Mapping[]> {
  const lines = (await readFile(`/proc/${pid}/maps`, 'utf8')).split('\n');
  return lines.flatMap((line) => {
    const match = /^([0-9a-f]+)-([0-9a-f]+) (r\S+) \S+ \S+ \S+ *(.*)$/.exec(line);
    if (match === null) return [];
    const [, from = '', to = '', permissions = '', name = ''] = match;
    // Beyond 2^53, and no data: [vsyscall].
    if (name === '[vsyscall]') return [];
    return [
      {
        from: Number.parseInt(from, 16),
        to: Number.parseInt(to, 16),
        name: `${name || '[anonymous]'} ${permissions}`,
      },
    ];
  });
}

const buffer = Buffer.from(new ArrayBuffer(chunkBytes + overlapBytes));

async function scanMapping(
  memory: FileHandle,
  { from, to, name }: Mapping,
  markers: Markers,
  scan: MemoryScan,
): Promise<void> {
  for (let at = from; at < to; at += chunkBytes) {
    // A little more than the step: a marker may lie across it.
    const bytes = Math.min(to - at, buffer.length);
    const { bytesRead } = await memory.read(buffer, 0, bytes, at).catch(() => ({ bytesRead: 0 }));
    if (bytesRead === 0) {
      scan.unreadable.push(name);
      return;
    }
    scan.scannedBytes += bytesRead;
    const place = (found: number): string => `${name} at ${(at + found).toString(16)}`;
    scan.findings.push(...markers.in(buffer.subarray(0, bytesRead), place, chunkBytes));
  }
}

async function stopped(pid: number): Promise<void> {
  for (let attempt = 0; attempt < 1_000; attempt++) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    if (/^[tT]$/.test(stat.slice(stat.lastIndexOf(')') + 2)[0] ?? '')) return;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  throw new Error(`process ${pid} does not stand still`);
}

/** Every regular file below the folder, whole; never across a mount that inro serves. */
export function scanFolder(folder: string, markers: Markers): Finding[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    const status = lstatSync(path);
    if (status.isDirectory()) return scanFolder(path, markers);
    return status.isFile() ? markers.in(readFileSync(path), () => path) : [];
  });
}

/** A stream of any length, such as a core file or a disk. */
export async function scanStream(stream: AsyncIterable<Buffer>, markers: Markers): Promise<MemoryScan> {
  const scan = emptyScan();
  // The end of one chunk is looked at again in front of the next: a marker may lie across it.
  let before: Buffer = Buffer.alloc(0);
  for await (const chunk of stream) {
    const bytes = Buffer.concat([before, chunk]);
    const from = scan.scannedBytes - before.length;
    const limit = bytes.length - overlapBytes;
    scan.findings.push(...markers.in(bytes, (at) => `byte ${from + at}`, limit));
    before = bytes.subarray(Math.max(0, limit));
    scan.scannedBytes += chunk.length;
  }
  const from = scan.scannedBytes - before.length;
  scan.findings.push(...markers.in(before, (at) => `byte ${from + at}`));
  return scan;
}

/** `241 MiB` */
export function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}

/** `plain 3 (secret start 1, secret end 2)`: how many findings of which. */
export function summary(findings: readonly Finding[]): string {
  if (findings.length === 0) return '0';
  const counts = new Map<string, number>();
  for (const { marker, form } of findings) {
    const key = form === 'plain' ? marker : `${marker} as ${form}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return `${findings.length} (${[...counts].map(([key, count]) => `${key} ${count}`).join(', ')})`;
}
