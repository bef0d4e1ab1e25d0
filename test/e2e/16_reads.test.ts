/** Who has read which version of a secret, on two nodes, as the manager tells it. */
import type { ExecutionContext } from 'ava';
import { readdirSync, rmdirSync } from 'node:fs';
import { Host, scenario, type Manager } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { eventually, program, type Daemon } from '../support/inro.js';

const file = '/run/inro/secrets/shop/key';
const unified = '/sys/fs/cgroup/unified';

interface Read {
  node: string;
  service: string;
  workload: string;
  uid: number | null;
  opened: number;
  refused: number;
  lastReadAt: string | null;
  lastRefusedAt: string | null;
  behind: boolean;
}

interface Cluster {
  a: Host;
  b: Host;
  manager: Manager;
}

async function cluster(t: ExecutionContext): Promise<Cluster> {
  t.teardown(() => {
    for (const name of readdirSync(unified))
      if (name.startsWith('inro-exec-shop-')) rmdirSync(`${unified}/${name}`);
  });
  const a = await Host.of(t, { hostname: 'node-a' });
  const b = await Host.of(t, { hostname: 'node-b' });
  const { manager } = await a.startCluster();
  await b.join(await a.ask(['token', 'show', 'worker']), manager.address);
  await b.startAgent();
  await a.ask(['secret', 'create', 'key', '-'], { stdin: 'first' });
  await a.ask(['service', 'create', '--name', 'shop', '--replicas', '2', '--secret', 'key']);
  return { a, b, manager };
}

/** A process of the service with the file open, which does in a shell what it is told. */
async function worker(host: Host): Promise<Daemon> {
  const line = `exec 3< ${file}; echo ready; while read line; do eval "$line" 2>&1; echo; done`;
  const daemon = host.spawn([process.execPath, program, 'exec', 'shop', '--', 'sh', '-c', line], {
    talks: true,
  });
  await daemon.printed(/^ready$/m);
  return daemon;
}

/** By version: `NODE READER OPENED/REFUSED`, and `behind`. */
async function reads(host: Host): Promise<Record<number, string[]>> {
  const secrets = await host.json<{ versions: { version: number; reads: Read[] }[] }[]>([
    'secret',
    'inspect',
    'key',
  ]);
  const shown = (one: Read): string =>
    `${one.node} ${one.workload} ${one.opened}/${one.refused}${one.behind ? ' behind' : ''}`;
  return Object.fromEntries(
    (secrets[0]?.versions ?? []).map((one) => [one.version, one.reads.map(shown).sort()]),
  );
}

async function untilReads(t: ExecutionContext, host: Host, wanted: Record<number, string[]>): Promise<void> {
  let last: unknown;
  await eventually('the manager tells it', async () => {
    last = await reads(host);
    return JSON.stringify(last) === JSON.stringify(wanted);
  }).catch(() => undefined);
  t.deepEqual(last, wanted);
}

scenario('who has read which version, and who has not read the new one, also after a restart', async (t) => {
  const { a, b, manager } = await cluster(t);
  const [one, two] = [await worker(a), await worker(b)];
  await untilReads(t, a, { 1: ['node-a exec sh 1/0', 'node-b exec sh 1/0'] });

  // 1. One opens the new version, the other reads on by its descriptor.
  await a.ask(['secret', 'update', 'key', '-'], { stdin: 'second' });
  one.say(`cat ${file}`);
  await one.printed(/^second$/m);
  two.say('cat <&3');
  await two.printed(/^first$/m);
  const behind = {
    1: ['node-a exec sh 1/0', 'node-b exec sh 1/0 behind'],
    2: ['node-a exec sh 1/0'],
  };
  await untilReads(t, a, behind);
  const table = await a.ask(['secret', 'inspect', 'key']);
  t.regex(table, /^VERSION +NODE +READ BY +USER +OPENED +REFUSED +LAST READ +NOTE$/m);
  t.regex(table, /^2 +node-a +exec sh +0 +1 +0 +a few seconds ago +-$/m);
  t.regex(table, /^1 +node-b +exec sh +0 +1 +0 +a (few seconds|minute) ago +has not read version 2$/m);

  // 2. The manager keeps it, and counts nothing twice.
  await manager.kill9();
  await a.startManager({ listen: manager.address });
  t.deepEqual(await reads(a), behind);

  // 3. What is refused is told too.
  t.is(await a.read(file), 'Permission denied');
  await eventually('the refusal is told', async () =>
    (await reads(a))[2]?.some((text) => /^node-a .* 0\/1$/.test(text) && !text.includes('exec sh')),
  );

  // 4. It reads the new one.
  two.say(`cat ${file}`);
  await two.printed(/^second$/m);
  await eventually('nobody is behind', async () => {
    const now = await reads(a);
    return now[2]?.includes('node-b exec sh 1/0') === true && !JSON.stringify(now).includes('behind');
  });

  // 5. It goes with the secret.
  t.is(await one.hangUp(), 0);
  t.is(await two.hangUp(), 0);
  await a.ask(['service', 'rm', 'shop']);
  await a.ask(['secret', 'rm', 'key']);
  await a.ask(['secret', 'create', 'key', '-'], { stdin: 'third' });
  t.deepEqual(await reads(a), { 1: [] });
});

labScenario(
  'what is read while no manager answers, or just before the file goes, is told later, once',
  async (t) => {
    const { a, b, manager } = await cluster(t);
    await manager.kill9();
    for (let n = 0; n < 3; n++) t.is(await b.read(file), 'first');
    await a.startManager({ listen: manager.address });
    const total = async (): Promise<number> => {
      const secrets = await a.json<{ versions: { reads: Read[] }[] }[]>(['secret', 'inspect', 'key']);
      return (secrets[0]?.versions[0]?.reads ?? []).reduce((sum, { opened }) => sum + opened, 0);
    };
    await eventually('it is told', async () => (await total()) > 0);
    t.is(await total(), 3);
    t.is(await a.read(file), 'first');
    await a.ask(['service', 'rm', 'shop']);
    await eventually('it is told', async () => (await total()) > 3);
    t.is(await total(), 4);
  },
);
