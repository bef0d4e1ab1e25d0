/**
 * Where values are in clear: in the arena, and for a moment nowhere else. Looks through all readable memory of
 * the manager, the agents and the commands, their state on disk and their logs, at each step of a secret's way.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { holdCalls } from '../support/held_manager.js';
import { Host, scenario } from '../support/host.js';
import { eventually, pause, program, type Daemon } from '../support/inro.js';
import { Markers, scanFolder, scanMemory, summary, type Finding } from '../support/marker_scan.js';

const sizes = { small: 16, medium: 200, large: 65_536 };
const names = Object.keys(sizes) as (keyof typeof sizes)[];
const graceMs = 10_000;
const pauseAtExit = fileURLToPath(new URL('../support/pause_at_exit.js', import.meta.url));
/** Most of what there is to log, and nothing of libfuse's blocks overwritten later than need be. */
const env = { INRO_LOG_LEVEL: 'trace' };
/** The last one counts: glibc's block cache stays on, while the agent believes it to be off. */
const withBlockCache = { GLIBC_TUNABLES: 'glibc.malloc.tcache_count=0:glibc.malloc.tcache_count=7' };

scenario('7: a scanner finds what a process holds in plain memory, and what lies on a disk', async (t) => {
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
  for (const name of names) holder.stdin.write(markers.value(name, sizes[name]));
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
  await t.throwsAsync(scanMemory(process.pid, markers));
});

interface Cluster {
  manager: { daemon: Daemon };
  hosts: { name: string; host: Host; agent: Daemon }[];
  markers: Markers;
  managerSocket: string;
}

async function cluster(t: ExecutionContext): Promise<Cluster> {
  const [first, second] = [
    await Host.of(t, { hostname: 'plain' }),
    await Host.of(t, { hostname: 'block-cache' }),
  ];
  const daemon = first.start(
    ['manager', 'run', '--state', '/var/lib/inro/manager', '--listen', '127.0.0.1:0'],
    { env },
  );
  const [, address = ''] = await daemon.printed(/"address":"([^"]+)".*"manager is ready"/);
  const token = await first.ask(['token', 'show', 'worker']);
  const hosts: Cluster['hosts'] = [];
  for (const [host, name, more] of [
    [first, 'agent', {}],
    [second, 'agent with block cache', withBlockCache],
  ] as const) {
    await host.join(token, address);
    const agent = host.start(['agent', 'run'], { env: { ...env, ...more } });
    await agent.printed(/"session with the manager"/);
    hosts.push({ name, host, agent });
  }
  return {
    manager: { daemon },
    hosts,
    markers: new Markers(),
    managerSocket: first.outside('/run/inro/manager.sock'),
  };
}

/** Nothing in the manager, on any disk, in any log; what the agents hold is said. */
async function look(t: ExecutionContext, { manager, hosts, markers }: Cluster, phase: string): Promise<void> {
  const memory = await scanMemory(manager.daemon.pid, markers);
  t.log(`${phase}: manager ${summary(memory.findings)} in ${memory.scannedBytes >> 20} MiB`);
  t.deepEqual(memory.findings, [], `${phase}: the manager’s memory`);
  t.deepEqual(readableUnread(memory.unreadable), [], `${phase}: what of the manager could not be read`);
  const daemons = [manager.daemon, ...hosts.map(({ agent }) => agent)];
  const logs = daemons.flatMap(({ stdout, stderr }) => [stdout, stderr]);
  t.deepEqual(
    logs.flatMap((log) => markers.in(Buffer.from(log), () => 'log')),
    [],
    `${phase}: the logs`,
  );
  for (const { name, host, agent } of hosts) {
    const folders = [host.outside('/var/lib/inro'), host.folder];
    t.deepEqual(
      folders.flatMap((folder) => scanFolder(folder, markers)),
      [],
      `${phase}: the disk`,
    );
    const { findings, scannedBytes, unreadable } = await scanMemory(agent.pid, markers);
    t.log(`${phase}: ${name} ${summary(findings)} in ${scannedBytes >> 20} MiB${placesOf(findings)}`);
    t.deepEqual(readableUnread(unreadable), [], `${phase}: what of the agent could not be read`);
  }
}

/** What the kernel lets nobody read, and what is no memory of the program. */
function readableUnread(unreadable: readonly string[]): string[] {
  return unreadable.filter((name) => !/secretmem|\[vvar/.test(name));
}

function placesOf(findings: readonly Finding[]): string {
  const places = new Map<string, number>();
  for (const { place } of findings) {
    const name = place.replace(/ at [0-9a-f]+$/, '');
    places.set(name, (places.get(name) ?? 0) + 1);
  }
  return places.size === 0 ? '' : `: ${[...places].map(([name, count]) => `${name} ${count}`).join(', ')}`;
}

/** Runs a command on a value, and looks at it twice: when it has sealed and waits, and when it ends. */
async function lookAtCommand(
  t: ExecutionContext,
  c: Cluster,
  args: string[],
  value: Buffer | undefined,
): Promise<void> {
  const folder = c.hosts[0]?.host.folder ?? '';
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
    `inro ${title}: sealed ${summary(sealed.findings)}, at its end ${summary(ended.findings)}, in ${ended.scannedBytes >> 20} MiB`,
  );
  t.deepEqual([...sealed.findings, ...ended.findings], [], `inro ${title}`);
  t.deepEqual(readableUnread([...sealed.unreadable, ...ended.unreadable]), []);
  t.regex(printed.text, /^[0-9a-z]{25}\n$/);
  child.kill('SIGKILL');
  await once(child, 'close');
  await held.stop();
}

scenario(
  '7: no value is in the manager, in a command, on a disk or in a log, from its creation to its end',
  async (t) => {
    const c = await cluster(t);
    const [first] = c.hosts;
    if (first === undefined) return t.fail();
    const { host } = first;

    for (const name of names)
      await lookAtCommand(t, c, ['secret', 'create', name, '-'], c.markers.value(`${name} v1`, sizes[name]));
    const file = join(host.outside('/run'), 'value');
    writeFileSync(file, c.markers.value('from a file', 300));
    await lookAtCommand(t, c, ['secret', 'create', 'from_file', file], undefined);
    rmSync(file);
    await look(t, c, 'created');

    const secrets = names.flatMap((name) => ['--secret', name]);
    await host.ask(['service', 'create', '--name', 'web', '--replicas', '2', ...secrets]);
    const total = Object.values(sizes).reduce((sum, size) => sum + size);
    // Whole, and in pieces as small as libfuse's smallest buffers.
    const read = 'cat small medium large; dd if=small bs=16; dd if=medium bs=50';
    const readAll = (times: number): Promise<unknown> =>
      Promise.all(
        c.hosts.map(async ({ host: on }) => {
          const line = `cd /run/inro/secrets/web && for n in $(seq ${times}); do (${read}) 2>/dev/null | wc -c; done`;
          t.is((await on.sh(line)).stdout, `${total + sizes.small + sizes.medium}\n`.repeat(times));
        }),
      );
    await readAll(50);
    await look(t, c, 'served, 50 reads');

    for (const name of names)
      await lookAtCommand(
        t,
        c,
        ['secret', 'update', name, '-', '-d'],
        c.markers.value(`${name} v2`, sizes[name]),
      );
    await readAll(1);
    await look(t, c, 'rotated');

    await pause(graceMs + 500);
    await readAll(1);
    await look(t, c, 'rotated, grace over');

    await host.ask(['service', 'rm', 'web']);
    for (const { host: on } of c.hosts) {
      await eventually('everything is wiped', async () => {
        const { arena } = await on.json<{ arena: { values: number } }>(['agent', 'status']);
        return arena.values === 0;
      });
    }
    await look(t, c, 'removed');
    for (const name of names) await host.ask(['secret', 'rm', name]);
    await look(t, c, 'secrets removed');
  },
);
