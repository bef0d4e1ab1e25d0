/**
 * Where values are in clear: in the arena, and for a moment nowhere else. Looks through all readable memory of
 * the manager, the agents and the commands, of all other processes, their state on disk and their logs, at each step of a
 * secret's way.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { holdCalls } from '../support/held_manager.js';
import { labScenario } from '../support/lab.js';
import { eventually, pause, program } from '../support/inro.js';
import {
  glanceAtMemory,
  Markers,
  mebibytes,
  scanFolder,
  scanMemory,
  scanStream,
  summary,
  type Finding,
} from '../support/marker_scan.js';
import {
  keepReading,
  look,
  markedCluster,
  placesOf,
  readableUnread,
  readMarkers,
  residentPages,
  secretNames,
  sizes,
  type MarkedCluster,
} from '../support/marked_cluster.js';

const graceMs = 10_000;
const pauseAtExit = fileURLToPath(new URL('../support/pause_at_exit.js', import.meta.url));

labScenario('7: a scanner finds what a process holds in plain memory, and what lies on a disk', async (t) => {
  const markers = new Markers();
  const holder = spawn(
    process.execPath,
    [
      '-e',
      "const b = []; process.stdin.on('data', (d) => b.push(d)).on('end', () => console.log('held')); setInterval(() => b, 1e6)",
    ],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  );
  t.teardown(() => holder.kill('SIGKILL'));
  for (const name of secretNames) holder.stdin.write(markers.value(name, sizes[name]));
  holder.stdin.end();
  await once(holder.stdout, 'data');
  const { findings } = await scanMemory(holder.pid as number, markers);
  t.log(`a Buffer in another process: ${summary(findings)}`);
  for (const piece of [
    'small whole',
    'medium start',
    'medium middle',
    'medium end',
    'large start',
    'large middle',
    'large end',
  ])
    t.true(
      findings.some(({ marker }) => marker === piece),
      piece,
    );

  const folder = mkdtempSync('/dev/shm/inro-marker-');
  t.teardown(() => rmSync(folder, { recursive: true }));
  const value = markers.value('file', 200);
  writeFileSync(join(folder, 'plain'), value);
  writeFileSync(join(folder, 'hex'), value.toString('hex'));
  t.is(
    summary(scanFolder(folder, markers).filter(({ form }) => form === 'plain')),
    '3 (file start 1, file middle 1, file end 1)',
  );
  t.is(scanFolder(folder, markers).length, 6);
  t.is(markers.in(Buffer.from(`{"msg":"${value.toString()}"}`), () => 'log').length, 3);
  // Cut anywhere, each marker is found once.
  for (const cut of [1, 7, 16, 100]) {
    const pieces = Array.from({ length: Math.ceil(value.length / cut) }, (_, at) =>
      value.subarray(at * cut, (at + 1) * cut),
    );
    t.is((await scanStream(Readable.from(pieces), markers)).findings.length, 3, `pieces of ${cut}`);
  }
  await t.throwsAsync(scanMemory(process.pid, markers));
});

/** Runs a command on a value, and looks at it twice: when it has sealed and waits, and when it ends. */
async function lookAtCommand(
  t: ExecutionContext,
  c: MarkedCluster,
  args: string[],
  value: Buffer | undefined,
): Promise<void> {
  const folder = c.nodes[0]?.host.folder ?? '';
  const socket = join(folder, `held-${args.slice(0, 3).join('-')}.sock`);
  const held = await holdCalls(socket, c.managerSocket, ['createSecret', 'updateSecret']);
  t.teardown(() => held.stop());
  const command = [program, ...args, '--manager', `unix:${socket}`];
  const child: ChildProcess = spawn(process.execPath, ['--import', pauseAtExit, ...command], {
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const printed = { text: '' };
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (text: Buffer) => (printed.text += text.toString()));
  child.stdin?.end(value);
  const ending = once(child.stdio[3] as NodeJS.ReadableStream, 'data').then(() => 'ending' as const);
  const title = args.slice(0, 3).join(' ');
  t.not(await Promise.race([held.arrived(), ending]), 'ending', printed.text);
  const sealed = await scanMemory(child.pid as number, c.markers);
  held.release();
  await ending;
  const ended = await scanMemory(child.pid as number, c.markers);
  t.log(
    `inro ${title}: sealed ${summary(sealed.findings)}, at its end ${summary(ended.findings)}, in ${mebibytes(ended.scannedBytes)}`,
  );
  t.deepEqual([...sealed.findings, ...ended.findings], [], `inro ${title}`);
  t.deepEqual(readableUnread([...sealed.unreadable, ...ended.unreadable]), []);
  t.regex(printed.text, /^[0-9a-z]{25}\n$/);
  child.kill('SIGKILL');
  await once(child, 'close');
  await held.stop();
}

labScenario(
  '7: no value is in the manager, in a command, in any process, on a disk or in a log, from its creation to its end',
  async (t) => {
    const c = await markedCluster(t);
    const [first] = c.nodes;
    if (first === undefined) return t.fail();
    const { host } = first;

    for (const name of secretNames)
      await lookAtCommand(t, c, ['secret', 'create', name, '-'], c.markers.value(`${name} v1`, sizes[name]));
    const file = join(host.outside('/run'), 'value');
    writeFileSync(file, c.markers.value('from a file', 300));
    await lookAtCommand(t, c, ['secret', 'create', 'from_file', file], undefined);
    rmSync(file);
    await look(t, c, 'created');

    const secrets = secretNames.flatMap((name) => ['--secret', name]);
    await host.ask(['service', 'create', '--name', 'web', '--replicas', '2', ...secrets]);
    await readMarkers(t, c, 50);
    await look(t, c, 'served, 50 reads', { everywhere: true });

    for (const node of c.nodes.filter(({ driver }) => driver === 'kernel'))
      t.is(await residentPages(node), '0', 'pages in the page cache');
    await host.sh('rm -f /run/small /run/medium /run/large');
    await lookUnderReads(t, c);
    await look(t, c, 'served, readers gone');

    for (const name of secretNames)
      await lookAtCommand(
        t,
        c,
        ['secret', 'update', name, '-', '-d'],
        c.markers.value(`${name} v2`, sizes[name]),
      );
    await readMarkers(t, c, 1);
    await look(t, c, 'rotated');

    await pause(graceMs + 500);
    await readMarkers(t, c, 1);
    await look(t, c, 'rotated, grace over');

    await host.ask(['service', 'rm', 'web']);
    for (const { host: on } of c.nodes) {
      await eventually('everything is wiped', async () => {
        const { arena } = await on.json<{ arena: { values: number } }>(['agent', 'status']);
        return arena.values === 0;
      });
    }
    await look(t, c, 'removed', { everywhere: true });
    for (const name of secretNames) await host.ask(['secret', 'rm', name]);
    await look(t, c, 'secrets removed');

    await host.ask(['secret', 'create', 'last', '-'], { stdin: c.markers.value('last', 5_000) });
    await host.ask(['service', 'create', '--name', 'end', '--replicas', '2', '--secret', 'last']);
    for (const { agent } of c.nodes) t.is(await agent.stop(), 0);
    await look(t, c, 'agents ended while they served', { everywhere: true });
  },
);

/** The kernel takes a reply from ordinary memory: while it is sent, and only then, it is in its thread's one buffer. */
async function lookUnderReads(t: ExecutionContext, c: MarkedCluster): Promise<void> {
  const glances = 200;
  const threads = 2;
  // Replies change while they are looked at: the beginning of one, middle and end of a medium and of a large one.
  const piecesOfABuffer = 5;
  for (const node of c.nodes) {
    const stop = keepReading(t, node);
    const { findings } = await scanMemory(node.agent.pid, c.markers);
    t.log(`under reads: ${node.driver}, all of it ${summary(findings)}${placesOf(findings)}`);
    const seen: Finding[] = [];
    for (let glance = 0; glance < glances; glance++) {
      const now = await glanceAtMemory(node.agent.pid, c.markers);
      if (node.driver === 'kernel') t.true(now.length <= threads * piecesOfABuffer, summary(now));
      seen.push(...now);
    }
    t.log(`under reads: ${node.driver}, its buffers ${glances} times ${summary(seen)}`);
    await stop();
  }
}
