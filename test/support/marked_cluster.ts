/** A manager and two nodes whose secrets are markers, and what is looked at to find them where they must not be. */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { driverNames, type DriverName } from '../../src/agent/mount/drivers.js';
import { Host } from './host.js';
import type { Daemon } from './inro.js';
import { kernelCallsFolder } from './kernel_calls.js';
import {
  Markers,
  mebibytes,
  scanFolder,
  scanMemory,
  scanOthers,
  summary,
  type Finding,
} from './marker_scan.js';

export const sizes = { small: 16, medium: 200, large: 65_536 };
export const secretNames = Object.keys(sizes) as (keyof typeof sizes)[];

/** Most of what there is to log. */
const env = { INRO_LOG_LEVEL: 'trace' };

export interface MarkedNode {
  driver: DriverName;
  host: Host;
  agent: Daemon;
}

export interface MarkedCluster {
  manager: Daemon;
  /** One for each driver; the first shares its host with the manager. */
  nodes: MarkedNode[];
  markers: Markers;
  managerSocket: string;
}

export interface MarkedClusterOptions {
  drivers?: readonly DriverName[];
  /** Words in front of the commands that start the manager and the agents. */
  through?: readonly string[];
}

export async function markedCluster(
  t: ExecutionContext,
  { drivers = driverNames, through = [] }: MarkedClusterOptions = {},
): Promise<MarkedCluster> {
  const hosts: [DriverName, Host][] = [];
  for (const driver of drivers) hosts.push([driver, await Host.of(t, { hostname: driver })]);
  const [, first] = hosts[0] as [DriverName, Host];
  const manager = first.start(
    ['manager', 'run', '--state', '/var/lib/inro/manager', '--listen', '127.0.0.1:0'],
    { env, through },
  );
  const [, address = ''] = await manager.printed(/"address":"([^"]+)".*"manager is ready"/);
  const token = await first.ask(['token', 'show', 'worker']);
  const nodes: MarkedNode[] = [];
  for (const [driver, host] of hosts) {
    await host.join(token, address);
    const agent = host.start(['agent', 'run', '--driver', driver], { env, through });
    await agent.printed(/"session with the manager"/);
    nodes.push({ driver, host, agent });
  }
  const managerSocket = first.outside('/run/inro/manager.sock');
  return { manager, nodes, markers: new Markers(), managerSocket };
}

/** Secrets and a service of them on every node. */
export async function serveMarkers({ nodes, markers }: MarkedCluster): Promise<void> {
  const { host } = nodes[0] as MarkedNode;
  for (const name of secretNames) {
    const value = markers.value(name, sizes[name]);
    await host.ask(['secret', 'create', name, '-'], { stdin: value });
  }
  const secrets = secretNames.flatMap((name) => ['--secret', name]);
  await host.ask(['service', 'create', '--name', 'web', '--replicas', String(nodes.length), ...secrets]);
}

/** Whole, and in pieces as small as a reply can be; what a shell says of them is their sizes. */
const readAll = 'cat small medium large; dd if=small bs=16; dd if=medium bs=50';
const readBytes = Object.values(sizes).reduce((sum, size) => sum + size) + sizes.small + sizes.medium;

export async function readMarkers(t: ExecutionContext, c: MarkedCluster, times: number): Promise<void> {
  const line = `cd /run/inro/secrets/web && for n in $(seq ${times}); do (${readAll}) 2>/dev/null | wc -c; done`;
  const read = await Promise.all(c.nodes.map(({ host }) => host.sh(line)));
  for (const { stdout } of read) t.is(stdout, `${readBytes}\n`.repeat(times));
}

/** Pages of the secrets in the page cache after they were read in all ways by which programs read, seen by a mapping from before. */
export async function residentPages({ host }: MarkedNode): Promise<string> {
  const program = `
from kernel_calls import *
os.chdir('/run/inro/secrets/web')
files = [os.open(name, os.O_RDONLY) for name in ${JSON.stringify(secretNames)}]
maps = [Mapping(fd, os.stat(fd).st_size, kind) for fd in files for kind in (mmap.MAP_PRIVATE, mmap.MAP_SHARED)]
os.system('(cat *; cp small medium large /run; dd if=large bs=100; tail -c 9 large; grep -c x large) > /dev/null 2>&1')
for fd in files:
  for read in (splice, sendfile):
    try: read(fd)
    except OSError: pass
print(sum(one.resident() for one in maps))`;
  const env = { PYTHONPATH: kernelCallsFolder, PYTHONDONTWRITEBYTECODE: '1' };
  const { stdout, stderr } = await host.run(['python3', '-c', program], { env });
  return stdout.trim() || stderr;
}

/** Reads of every size, without a pause, until the function that this gives back is called. */
export function keepReading(t: ExecutionContext, { host }: MarkedNode): () => Promise<void> {
  const enough = join(mkdtempSync(join(host.folder, 'reading-')), 'enough');
  const program = `
    const [enough, ...names] = process.argv.slice(1);
    const fds = names.map((name) => fs.openSync('/run/inro/secrets/web/' + name));
    const buffer = Buffer.alloc(1 << 20);
    let bytes;
    do for (let round = 0; round < 100; round++) bytes = fds.map((fd) => fs.readSync(fd, buffer, 0, buffer.length, 0));
    while (!fs.existsSync(enough));
    console.log(bytes.join());`;
  const readers = [1, 2].map(() => host.spawn([process.execPath, '-e', program, enough, ...secretNames]));
  return async () => {
    await host.sh(`touch ${enough}`);
    for (const reader of readers) {
      t.is(await reader.exited, 0, reader.stderr);
      t.is(reader.stdout, `${Object.values(sizes).join()}\n`);
    }
  };
}

/** Nothing in the manager, in the agents, on any disk, in any log. @param everywhere nor in any other process. */
export async function look(
  t: ExecutionContext,
  c: MarkedCluster,
  phase: string,
  { everywhere = false } = {},
): Promise<void> {
  const { manager, nodes, markers } = c;
  const logs = [manager, ...nodes.map(({ agent }) => agent)].flatMap(({ stdout, stderr }) => [
    stdout,
    stderr,
  ]);
  t.deepEqual(
    logs.flatMap((log) => markers.in(Buffer.from(log), () => 'log')),
    [],
    `${phase}: the logs`,
  );
  const folders = nodes.flatMap(({ host }) => [host.outside('/var/lib/inro'), host.folder]);
  t.deepEqual(
    folders.flatMap((folder) => scanFolder(folder, markers)),
    [],
    `${phase}: the disk`,
  );
  const programs = { manager, ...Object.fromEntries(nodes.map(({ driver, agent }) => [driver, agent])) };
  for (const [name, { pid, running }] of Object.entries(programs)) {
    if (!running) continue;
    const { findings, scannedBytes, unreadable } = await scanMemory(pid, markers);
    t.log(`${phase}: ${name} ${summary(findings)} in ${mebibytes(scannedBytes)}${placesOf(findings)}`);
    t.deepEqual(findings, [], `${phase}: the memory of ${name}`);
    t.deepEqual(readableUnread(unreadable), [], `${phase}: what of ${name} could not be read`);
  }
  if (!everywhere) return;
  const others = await scanOthers(markers);
  t.log(
    `${phase}: ${others.processes} processes ${summary(others.findings)} in ${mebibytes(others.scannedBytes)}`,
  );
  t.deepEqual(others.findings, [], `${phase}: any process`);
}

/** What the kernel lets nobody read, and what is no memory of the program. */
export function readableUnread(unreadable: readonly string[]): string[] {
  return unreadable.filter((name) => !/secretmem|\[vvar/.test(name));
}

export function placesOf(findings: readonly Finding[]): string {
  const places = new Map<string, number>();
  for (const { place } of findings) {
    const name = place.replace(/ at [0-9a-f]+$/, '');
    places.set(name, (places.get(name) ?? 0) + 1);
  }
  return places.size === 0 ? '' : `: ${[...places].map(([name, count]) => `${name} ${count}`).join(', ')}`;
}
