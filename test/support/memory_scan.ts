/** What another user of the host with the right to do so (root) finds in a process's memory. */
import { open, readFile } from 'node:fs/promises';

const chunkBytes = 4 << 20;

/** How often each marker stands in the readable memory of another process. Markers are at most 64 bytes long. */
export async function countInMemory(pid: number, markers: readonly Uint8Array[]): Promise<number[]> {
  const counts = markers.map(() => 0);
  const memory = await open(`/proc/${pid}/mem`, 'r');
  try {
    const buffer = Buffer.from(new ArrayBuffer(chunkBytes + 64));
    for (const { from, to } of await readableRanges(pid)) {
      for (let at = from; at < to; at += chunkBytes) {
        // Some bytes more than the step: a marker may lie across it.
        const bytes = Math.min(to - at, buffer.length);
        // Fails for what no one may read, such as memfd_secret and [vvar].
        const { bytesRead } = await memory.read(buffer, 0, bytes, at).catch(() => ({ bytesRead: 0 }));
        markers.forEach((marker, index) => {
          counts[index] = (counts[index] ?? 0) + occurrences(buffer.subarray(0, bytesRead), marker);
        });
      }
    }
  } finally {
    await memory.close();
  }
  return counts;
}

async function readableRanges(pid: number): Promise<{ from: number; to: number }[]> {
  const maps = await readFile(`/proc/${pid}/maps`, 'utf8');
  return maps.split('\n').flatMap((line) => {
    const match = /^([0-9a-f]+)-([0-9a-f]+) r/.exec(line);
    // [vsyscall] lies beyond 2^53 and holds no data.
    if (match === null || line.includes('[vsyscall]')) return [];
    return [{ from: Number.parseInt(match[1] ?? '', 16), to: Number.parseInt(match[2] ?? '', 16) }];
  });
}

function occurrences(bytes: Buffer, marker: Uint8Array): number {
  let count = 0;
  for (let at = bytes.indexOf(marker); at >= 0 && at < chunkBytes; at = bytes.indexOf(marker, at + 1))
    count++;
  return count;
}
