/** Values that stand in a manifest: the command that reads them has them in its arena alone, from its beginning to its end. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { openArena } from '../../src/crypto/arena.js';
import { holdCalls } from '../support/held_manager.js';
import { Host, scenario } from '../support/host.js';
import { program } from '../support/inro.js';
import { readableUnread } from '../support/marked_cluster.js';
import { Markers, mebibytes, scanMemory, summary } from '../support/marker_scan.js';
import { countInMemory } from '../support/memory_scan.js';

const pauseAtExit = fileURLToPath(new URL('../support/pause_at_exit.js', import.meta.url));
const sizes = { tiny: 16, short: 40, medium: 200, large: 65_536 };
const isSecret = openArena(4096).facts().kind === 'memfd_secret';

interface Look {
  manifest: string;
  markers: Markers;
  /** What must not be there in any other form, in pieces. */
  others: Buffer[];
  /** What must be there: it says that the scan finds strings. */
  control: Buffer;
}

/** Every form of a value: plain and quoted, as a block, in base64. @param json as kubectl -o json writes it. */
function marked(json: boolean): Look {
  const markers = new Markers();
  const text = (name: string, bytes: number) => markers.value(name, bytes).toString();
  const data: Record<string, string> = {};
  const stringData: Record<string, string> = {};
  for (const [name, bytes] of Object.entries(sizes)) {
    data[`data-${name}`] = Buffer.from(text(`data ${name}`, bytes)).toString('base64');
    stringData[`text-${name}`] = text(`text ${name}`, bytes);
  }
  const control = text('control', 16);
  const metadata = { name: 'db', labels: { control } };
  const whole = { apiVersion: 'v1', kind: 'Secret', metadata, data, stringData };
  const others = Object.values(data).flatMap((base64) =>
    [0, (base64.length >> 1) - 8, base64.length - 20].map((at) => Buffer.from(base64.slice(at, at + 16))),
  );
  const block = ['first', 'second'].map((line) => `      ${text(`block ${line}`, 48)}\n`).join('');
  const lines = (all: Record<string, string>, quote: string) =>
    Object.entries(all).map(
      ([key, value], at) => `  ${key}: ${at % 2 === 0 ? value : quote + value + quote}\n`,
    );
  const yaml = `apiVersion: v1
kind: Secret
metadata: ${JSON.stringify(metadata)}
data:
${lines(data, '"').join('')}stringData:
${lines(stringData, "'").join('')}  block: |
${block}`;
  const manifest = json ? JSON.stringify(whole, undefined, 4) : yaml;
  return { manifest, markers, others, control: Buffer.from(control) };
}

async function lookAt(
  t: ExecutionContext,
  host: Host,
  { manifest, markers, others, control }: Look,
  how: 'pipe' | 'file',
): Promise<void> {
  const socket = join(host.folder, `held-${how}.sock`);
  const held = await holdCalls(socket, host.outside('/run/inro/manager.sock'), ['apply']);
  t.teardown(() => held.stop());
  const file = host.outside('/run/secret.yaml');
  if (how === 'file') writeFileSync(file, manifest);
  const args = ['apply', '-f', how === 'file' ? file : '-', '--yes', '--manager', `unix:${socket}`];
  const child = spawn(process.execPath, ['--import', pauseAtExit, program, ...args], {
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  let printed = '';
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (text: Buffer) => (printed += text.toString()));
  child.stdin?.end(how === 'pipe' ? manifest : undefined);
  const ending = once(child.stdio[3] as NodeJS.ReadableStream, 'data').then(() => 'ending' as const);
  t.not(await Promise.race([held.arrived(), ending]), 'ending', printed);
  const look = async (when: string): Promise<void> => {
    const pid = child.pid as number;
    const { findings, scannedBytes, unreadable } = await scanMemory(pid, markers);
    const values = findings.filter(({ marker }) => !marker.startsWith('control'));
    const [controls = 0, ...counts] = await countInMemory(pid, [control, ...others]);
    t.log(`${how}, ${when}: ${summary(values)}; base64 ${counts.join(' ')}; ${mebibytes(scannedBytes)}`);
    t.deepEqual(values, [], when);
    t.deepEqual(
      counts,
      others.map(() => 0),
      `${when}: as base64`,
    );
    t.true(controls > 0, 'what is no secret is found');
    t.deepEqual(readableUnread(unreadable), []);
  };
  await look('sealed');
  held.release();
  await ending;
  await look('at its end');
  t.regex(printed, /changes applied\n$/);
  child.kill('SIGKILL');
  await once(child, 'close');
  await held.stop();
}

scenario('the values of a manifest are in no memory that can be read', async (t) => {
  if (!isSecret) {
    t.pass('without memfd_secret the arena itself can be read');
    return;
  }
  for (const [json, how] of [
    [false, 'pipe'],
    [true, 'file'],
  ] as const) {
    const host = await Host.of(t);
    await host.startCluster();
    await lookAt(t, host, marked(json), how);
  }
});
