/** What is done for workloads when their secrets change, and tasks that end when nobody uses them any more. */
import type { ExecutionContext } from 'ava';
import { clearExecGroups } from '../support/exec_groups.js';
import { Host, scenario } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { eventually, program, type Daemon } from '../support/inro.js';
import { KeptAgent } from '../support/kept_agent.js';

interface TaskLine {
  id: string;
  state: string;
  error: string;
  change: { action: string; error: string; at: string } | null;
}

const config = '/run/agent.yaml';

/** A host whose agent has these hooks, and a secret `key`. */
async function hostWith(
  t: ExecutionContext,
  hooks: string[] = [],
): Promise<{ host: Host; agent: KeptAgent }> {
  for (const service of ['told', 'process', 'job']) clearExecGroups(t, service);
  const host = await Host.of(t);
  const manager = await host.startManager();
  await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
  await configure(host, hooks);
  const agent = await KeptAgent.start(host, ['--config', config]);
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'one' });
  return { host, agent };
}

const configure = (host: Host, hooks: string[]) =>
  host.sh(`cat > ${config}`, {
    stdin: hooks.length === 0 ? '' : ['hooks:', ...hooks.map((line) => `  ${line}`), ''].join('\n'),
  });
const create = (host: Host, name: string, ...more: string[]) =>
  host.ask(['service', 'create', '--name', name, '--secret', 'key', ...more]);
const rotate = (host: Host, value: string) => host.ask(['secret', 'update', 'key', '-'], { stdin: value });
const tasks = (host: Host, service: string) => host.json<TaskLine[]>(['service', 'ps', service]);
const written = async (host: Host, file: string) => (await host.sh(`cat ${file} 2>/dev/null`)).stdout;

async function changeOf(host: Host, service: string): Promise<NonNullable<TaskLine['change']>> {
  let found: TaskLine['change'] | undefined;
  await eventually(`${service} has been told`, async () => {
    found = (await tasks(host, service))[0]?.change;
    return found !== undefined && found !== null;
  });
  return found as NonNullable<TaskLine['change']>;
}

/** Writes what it reads at each SIGHUP; ends at a line from outside. */
async function reloader(host: Host, service: string): Promise<Daemon> {
  const line = `trap 'cat $INRO_SECRETS/key >> /run/seen; echo >> /run/seen' HUP; echo ready; read end; while [ -z "$end" ]; do read end; done`;
  const daemon = host.spawn([process.execPath, program, 'exec', service, '--', 'sh', '-c', line], {
    talks: true,
  });
  await daemon.printed(/^ready$/m);
  return daemon;
}

scenario('1: a signal reaches the main process of a workload, which then reads the new value', async (t) => {
  const { host } = await hostWith(t);
  await create(host, 'told', '--on-change', 'signal=SIGHUP');
  await reloader(host, 'told');
  t.is((await tasks(host, 'told'))[0]?.change, null);
  await rotate(host, 'two');
  await eventually('it has read it', async () => (await written(host, '/run/seen')) === 'two\n');
  const change = await changeOf(host, 'told');
  t.like(change, { action: 'signal=HUP', error: '' });
  t.regex(await host.ask(['service', 'ps', 'told']), /LAST CHANGE\n.* signal=HUP .* ago$/m);
  t.regex(await host.ask(['service', 'inspect', 'told']), /On change: +signal=HUP/);

  await host.ask(['service', 'update', '--on-change', 'none', 'told']);
  await rotate(host, 'three');
  t.deepEqual((await tasks(host, 'told'))[0]?.change, change, 'nothing is done any more');
});

labScenario(
  '2: what cannot be done is said in `service ps`, and the new value is served all the same',
  async (t) => {
    const { host } = await hostWith(t, ['broken: [/bin/sh, -c, "echo not this way >&2; exit 3"]']);
    await create(host, 'nobody', '--on-change', 'signal=HUP');
    await create(host, 'unknown', '--on-change', 'hook=reload');
    await create(host, 'broken', '--on-change', 'hook=broken');
    await create(host, 'process', '--on-change', 'restart');
    await reloader(host, 'process');
    await rotate(host, 'two');
    t.like(await changeOf(host, 'nobody'), { error: 'no workload is attached, so there was nobody to tell' });
    t.regex((await changeOf(host, 'unknown')).error, /no hook "reload".*agent\.yaml/);
    t.is((await changeOf(host, 'broken')).error, 'hook broken failed: exit code 3: not this way');
    t.is(
      (await changeOf(host, 'process')).error,
      'exec sh: only containers and units can be restarted; use signal or hook',
    );
    t.is(await host.read('/run/inro/secrets/nobody/key'), 'two');
    t.is((await tasks(host, 'broken'))[0]?.state, 'RUNNING');
  },
);

labScenario(
  '3: a hook is the node’s own command, for the files that ask for it; a reload brings new ones',
  async (t) => {
    const { host, agent } = await hostWith(t, [
      'note: [/bin/sh, -c, "echo $INRO_SERVICE $INRO_SECRETS $(env | wc -l) >> /run/noted"]',
    ]);
    await host.ask(['secret', 'create', 'other', '-'], { stdin: 'one' });
    await create(host, 'web', '--secret', 'source=other,on-change=hook=note');
    await rotate(host, 'two');
    await host.ask(['secret', 'update', 'other', '-'], { stdin: 'two' });
    t.like(await changeOf(host, 'web'), { action: 'hook=note', error: '' });
    t.regex(await written(host, '/run/noted'), /^web \/run\/inro\/secrets\/web [0-9]+\n$/);
    await configure(host, ['note: [/bin/sh, -c, "echo anew >> /run/noted"]']);
    await agent.order({ kill: 'SIGHUP' });
    await eventually('it is read again', async () => agent.log.includes('the settings have changed'));
    await host.ask(['secret', 'update', 'other', '-'], { stdin: 'three' });
    await eventually('the new one is run', async () =>
      (await written(host, '/run/noted')).endsWith('\nanew\n'),
    );
  },
);

labScenario('4: many rotations in a row are few calls, and the last one is never left out', async (t) => {
  const { host } = await hostWith(t, ['note: [/bin/sh, -c, "echo $INRO_GENERATION >> /run/noted"]']);
  await create(host, 'web', '--on-change', 'hook=note');
  for (let n = 1; n <= 8; n++) await rotate(host, `value ${n}`);
  await eventually('the last one is told', async () => (await written(host, '/run/noted')).endsWith('9\n'));
  const calls = (await written(host, '/run/noted')).trim().split('\n');
  t.true(calls.length < 8, `${calls.length} calls for 8 rotations`);
});

labScenario('5: what a killed agent had not done yet, its successor does', async (t) => {
  const { host, agent } = await hostWith(t, [
    'note: [/bin/sh, -c, "echo begun >> /run/noted; [ -e /run/go ] || exec sleep 1000"]',
  ]);
  await create(host, 'web', '--on-change', 'hook=note');
  await rotate(host, 'two');
  await eventually('it is being told', async () => (await written(host, '/run/noted')) === 'begun\n');
  await host.sh('touch /run/go');
  await agent.killAndWait();
  t.like(await changeOf(host, 'web'), { action: 'hook=note', error: '' });
  t.is(await written(host, '/run/noted'), 'begun\nbegun\n');
});

labScenario(
  '6: a task that lasts until it is detached is complete then, wiped, and not replaced',
  async (t) => {
    const { host } = await hostWith(t);
    await create(host, 'job', '--until', 'detached', '--detach-grace', '1');
    t.is(await host.read('/run/inro/secrets/job/key'), 'one', 'nobody has been attached yet');
    await host.ask(['exec', 'job', '--', 'sh', '-c', 'cat $INRO_SECRETS/key']);
    await eventually('it has ended', async () => (await tasks(host, 'job'))[0]?.state === 'COMPLETE');
    t.is(await host.read('/run/inro/secrets/job/key'), 'No such file or directory');
    t.regex(await host.ask(['agent', 'status']), /0 values|values: 0/);
    await host.ask(['service', 'update', '--label-add', 'a=b', 'job']);
    t.is((await tasks(host, 'job')).length, 1);
  },
);
