/** Containers of Podman: bind mounts by hand, and those that inro starts through its API. */
import type { ExecutionContext } from 'ava';
import { Host } from '../support/host.js';
import { image } from '../support/image.js';
import { eventually } from '../support/inro.js';
import { KeptAgent } from '../support/kept_agent.js';
import { labScenario } from '../support/lab.js';
import { Podman, podmanSocket } from '../support/podman.js';

const timeoutMs = 300_000;
const secret = 'a-value-that-nobody-may-find';

async function podmanHost(t: ExecutionContext): Promise<{ host: Host; podman: Podman; agent: KeptAgent }> {
  const host = await Host.of(t, { ownNetwork: true });
  const manager = await host.startManager();
  const podman = await Podman.on(t, host);
  await podman.serve();
  await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
  const agent = await KeptAgent.start(host, ['--docker', podmanSocket]);
  await host.ask(['secret', 'create', 'key', '-'], { stdin: secret });
  return { host, podman, agent };
}

labScenario(
  '1: a bind mount by hand, for a service that lets anybody read: as root, as a user, read-only, with mapped users',
  async (t) => {
    const { host, podman } = await podmanHost(t);
    const own = (uid: string) => ['--secret', `source=key,target=of-${uid},uid=${uid},gid=${uid},mode=0400`];
    const references = ['--secret', 'key', ...own('1000'), ...own('101000')];
    await host.ask(['service', 'create', '--name', 'open', '--readers', 'any', ...references]);
    const folder = ['--rm', '--network', 'none', '-v', '/run/inro/secrets/open:/run/secrets:ro'];
    const run = (more: readonly string[], ...command: string[]) =>
      podman.run('run', ...folder, ...more, image, ...command);
    const read = async (file: string, ...more: string[]) => {
      const { code, stdout, stderr } = await run(more, 'cat', `/run/secrets/${file}`);
      return code === 0 ? stdout : (stderr.trimEnd().split(': ').at(-1) ?? '');
    };
    /** Mode, owner and group of each file. */
    const seen = async (...more: string[]) =>
      (await run(more, 'ls', '-ln', '/run/secrets')).stdout
        .split('\n')
        .filter((line) => line.startsWith('-'))
        .map((line) => line.split(/\s+/))
        .map(([mode, , uid, gid]) => `${mode} ${uid} ${gid}`);

    t.is(await read('key'), secret);
    t.is(await read('key', '--user', '1000'), secret);
    t.is(await read('of-1000', '--user', '1000'), secret);
    t.is(await read('of-1000', '--user', '1001'), 'Permission denied');
    t.is(await read('key', '--read-only', '--cap-drop', 'ALL'), secret);
    t.deepEqual(await seen(), ['-r--r--r-- 0 0', '-r-------- 1000 1000', '-r-------- 101000 101000']);
    const written = await run([], 'sh', '-c', 'echo x > /run/secrets/key');
    t.regex(written.stderr, /Read-only file system/);

    const mapped = ['--uidmap', '0:100000:65536'];
    t.is(await read('key', ...mapped), secret);
    t.is(await read('key', ...mapped, '--user', '1000', '--read-only'), secret);
    t.is(await read('of-101000', ...mapped, '--user', '1000'), secret);
    t.is(await read('of-1000', ...mapped, '--user', '1000'), 'Permission denied');
    t.deepEqual(await seen(...mapped), [
      '-r--r--r-- 65534 65534',
      '-r-------- 65534 65534',
      '-r-------- 1000 1000',
    ]);
  },
  { timeoutMs },
);
