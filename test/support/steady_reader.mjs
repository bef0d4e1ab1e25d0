/**
 * Reads without a pause until a file appears, and then says how that went: {"reads": how many, "failed": by errno, "wrong": by
 * content that was not expected, "longestMs": the longest that one took}.
 *
 *   node steady_reader.mjs open|descriptor|list FILE UNTIL CONTENT...
 *
 * By opening it each time, through one descriptor, or the folder's names.
 */
import * as fs from 'node:fs';
import { basename, dirname } from 'node:path';

const [way, path, until, ...contents] = process.argv.slice(2);
const buffer = Buffer.alloc(65_536);
const kept = way === 'descriptor' ? fs.openSync(path, 'r') : -1;

const ways = {
  open() {
    const fd = fs.openSync(path, 'r');
    try {
      fs.fstatSync(fd);
      return buffer.toString('latin1', 0, fs.readSync(fd, buffer, 0, buffer.length, null));
    } finally {
      fs.closeSync(fd);
    }
  },
  descriptor: () => buffer.toString('latin1', 0, fs.readSync(kept, buffer, 0, buffer.length, 0)),
  list: () => (fs.readdirSync(dirname(path)).includes(basename(path)) ? contents[0] : 'a list without it'),
};

const result = { reads: 0, failed: {}, wrong: {}, longestMs: 0 };
const count = (by, what) => (by[what] = (by[what] ?? 0) + 1);
process.stdout.write('reading\n');
while (result.reads % 64 !== 0 || !fs.existsSync(until)) {
  const began = performance.now();
  try {
    const content = ways[way]();
    if (!contents.includes(content)) count(result.wrong, content.slice(0, 60));
  } catch (error) {
    count(result.failed, error.code);
  }
  result.longestMs = Math.max(result.longestMs, Math.round((performance.now() - began) * 10) / 10);
  result.reads++;
}
process.stdout.write(`${JSON.stringify(result)}\n`);
