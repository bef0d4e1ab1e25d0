/** Preloaded (`node --import`): when the program ends, it says so on descriptor 3 and waits there to be killed. */
import { writeSync } from 'node:fs';

process.on('exit', () => {
  writeSync(3, 'ending\n');
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
});
