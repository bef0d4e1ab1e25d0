/** Where values are in clear, looked for in what a host writes of a process's memory: core files and swap. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { run } from '../support/inro.js';
import { labScenario } from '../support/lab.js';
import { mebibytes, scanStream, summary, type Markers, type MemoryScan } from '../support/marker_scan.js';
import {
  keepReading,
  look,
  markedCluster,
  readMarkers,
  serveMarkers,
  type MarkedNode,
} from '../support/marked_cluster.js';
import { memoryPressure } from '../support/memory_pressure.js';

/** A process that holds a value in a Buffer, and in a file of a tmpfs if given one. */
async function holder(
  t: ExecutionContext,
  value: Buffer,
  { through = [], file = '' }: { through?: readonly string[]; file?: string } = {},
): Promise<number> {
  const program = `
    const value = []; process.stdin.on('data', (data) => value.push(data)).on('end', () => {
      if (process.argv[1]) fs.writeFileSync(process.argv[1], Buffer.concat(value));
      console.log('held'); setInterval(() => value, 1e6);
    })`;
  const command = [...through, process.execPath, '-e', program, file];
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...command], {
    cwd: '/',
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  child.stdin.end(value);
  await once(child.stdout, 'data');
  return child.pid as number;
}

/** A core file as gcore(1) writes it. @param everything also of what asked to be left out (MADV_DONTDUMP). */
async function core(
  folder: string,
  pid: number,
  markers: Markers,
  { everything }: { everything: boolean },
): Promise<MemoryScan> {
  const path = join(folder, 'core');
  const { code, stderr } = await run(['gcore', ...(everything ? ['-a'] : []), '-o', path, String(pid)]);
  if (code !== 0) throw new Error(stderr);
  const file = `${path}.${pid}`;
  const scan = await scanStream(createReadStream(file, { highWaterMark: 4 << 20 }), markers);
  rmSync(file);
  return scan;
}

labScenario(
  '7: a core file of the agent holds no value, not even of memory that asked to be left out',
  async (t) => {
    const c = await markedCluster(t, { drivers: ['kernel'] });
    const { agent, host } = c.nodes[0] as MarkedNode;
    await serveMarkers(c);
    await readMarkers(t, c, 20);
    // The last that a thread copied stays in its registers, if nothing clears them: a short value, whole.
    const last = '/run/inro/secrets/web/small';
    const once = `exec 3< ${last}; dd bs=64 count=1 status=none <&3 | wc -c; exec sleep infinity`;
    for (let reader = 0; reader < 4; reader++) await host.spawn(['sh', '-c', once]).printed(/^16\n/);

    const plain = await holder(t, c.markers.value('plain', 5_000));
    const found = await core(host.folder, plain, c.markers, { everything: false });
    t.log(`core of a process with a Buffer: ${summary(found.findings)} in ${mebibytes(found.scannedBytes)}`);
    t.true(found.findings.length >= 3);

    const quiet = await core(host.folder, agent.pid, c.markers, { everything: true });
    t.log(`core of all memory, no readers: ${summary(quiet.findings)} in ${mebibytes(quiet.scannedBytes)}`);
    t.deepEqual(quiet.findings, []);
    const stop = keepReading(t, c.nodes[0] as MarkedNode);
    const busy = await core(host.folder, agent.pid, c.markers, { everything: false });
    t.log(`core under reads: ${summary(busy.findings)} in ${mebibytes(busy.scannedBytes)}`);
    t.deepEqual(busy.findings, []);
    await stop();

    await host.ask(['service', 'rm', 'web']);
    const wiped = await core(host.folder, agent.pid, c.markers, { everything: true });
    t.log(`core of all memory, after the wipe: ${summary(wiped.findings)}`);
    t.deepEqual(wiped.findings, []);
  },
);

labScenario('7: agent and manager are swapped out, and no value is in the swap file', async (t) => {
  const pressure = await memoryPressure(t);
  const c = await markedCluster(t, { drivers: ['kernel'], through: pressure.through });
  const { agent, host } = c.nodes[0] as MarkedNode;
  await serveMarkers(c);
  await readMarkers(t, c, 20);

  const file = host.outside('/dev/shm/control');
  t.teardown(() => rmSync(file, { force: true }));
  const control = c.markers.value('control', 1_000_000);
  const { through } = pressure;
  const plain = await holder(t, control, { through, file });
  const squeezed = [agent.pid, c.manager.pid, plain];
  await pressure.squeeze(squeezed, 0.8);
  const swap = await pressure.scan(c.markers);
  t.log(`swap while served: ${summary(swap.findings)} in ${mebibytes(swap.scannedBytes)}`);
  const [controls, values] = split(swap);
  for (const place of ['start', 'middle', 'end'])
    t.true(
      controls.filter(({ marker }) => marker === `control ${place}`).length >= 2,
      `a Buffer and a tmpfs: ${place}`,
    );
  t.deepEqual(values, []);

  await readMarkers(t, c, 5);
  await host.ask(['service', 'rm', 'web']);
  await pressure.squeeze(squeezed, 0.8);
  const wiped = await pressure.scan(c.markers);
  t.log(`swap after the wipe: ${summary(wiped.findings)}`);
  t.deepEqual(split(wiped)[1], []);
  process.kill(plain, 'SIGKILL');
  await look(t, c, 'swapped out, wiped');
});

function split({ findings }: MemoryScan): [controls: MemoryScan['findings'], values: MemoryScan['findings']] {
  const isControl = ({ marker }: { marker: string }) => marker.startsWith('control');
  return [findings.filter(isControl), findings.filter((one) => !isControl(one))];
}
