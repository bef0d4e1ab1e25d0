/**
 * Takes a renewed pair in a state folder, settles it or goes back, and kills itself before the nth change to the disk: in the
 * middle of one, if that is a write. Says how far it came.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const [folder = '', pairFile = '', nowText = '', way = '', nText = ''] = process.argv.slice(2);
const pair = JSON.parse(fs.readFileSync(pairFile, 'utf8')) as { certificatePem: string; keyPem: string };
let left = Number(nText);

const die = (): void => {
  if (--left > 0) return;
  process.kill(process.pid, 'SIGKILL');
  for (;;); // it comes at once, but not before this
};
const { writeSync } = fs;
for (const name of ['fchmodSync', 'fsyncSync', 'mkdirSync', 'renameSync', 'rmSync'] as const) {
  const real = fs[name] as (...args: unknown[]) => unknown;
  Object.assign(fs, {
    [name]: (...args: unknown[]) => {
      die();
      return real(...args);
    },
  });
}
Object.assign(fs, {
  writeSync: (descriptor: number, bytes: Uint8Array, from: number) => {
    if (left === 1) writeSync(descriptor, bytes.subarray(0, bytes.length / 2));
    die();
    return writeSync(descriptor, bytes, from);
  },
});
syncBuiltinESMExports();

const say = (text: string): void => void writeSync(1, `${text}\n`);
const { dropRenewed, saveRenewed, settleRenewed, findIdentity } = await import('../../src/agent/identity.js');
saveRenewed(folder, pair);
say('taken');
findIdentity(folder, Number(nowText));
if (way === 'settle') settleRenewed(folder, pair);
else dropRenewed(folder);
say('done');
