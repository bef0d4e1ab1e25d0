import { availableParallelism } from 'node:os';
import { byLength } from './scripts/test/order.mjs';

export default {
  files: ['test/**/*.test.ts'],
  // The set-up has compiled them.
  typescript: { rewritePaths: { 'test/': 'dist/test/' }, compile: false },
  // Processes: tests load the addon, change the umask, and take signals.
  workerThreads: false,
  // Many tests wait for processes, most of the time.
  concurrency: Math.min(availableParallelism() + 1, 4),
  sortTestFiles: byLength,
  timeout: '2m',
  require: ['./scripts/test/durations.mjs'],
  // node_modules/.cache may not be ours to write.
  cache: false,
};
