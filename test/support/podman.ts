/** A real Podman on a test's host, in the host's own folders, with one image: busybox alone. */
import type { ExecutionContext } from 'ava';
import { removeCgroups } from './docker.js';
import type { Host } from './host.js';
import { image, imageTar } from './image.js';
import { eventually, type Daemon, type Result } from './inro.js';

export const podmanSocket = '/run/podman.sock';

// The usual limits of containers are more than a test machine may give. Locks in shared memory would be those of the real host.
const settings = `
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
[engine.volume_plugins]
inro = "/run/docker/plugins/inro.sock"
`;
const config = '/run/containers.conf';
const folders = ['--root', '/run/podman-data', '--runroot', '/run/podman-run', '--storage-driver', 'vfs'];

export class Podman {
  readonly #host: Host;
  #service: Daemon | undefined;

  private constructor(host: Host) {
    this.#host = host;
  }

  /** Has the image. Everything that it started ends with the test. */
  static async on(t: ExecutionContext, host: Host): Promise<Podman> {
    const podman = new Podman(host);
    t.teardown(() => podman.#end());
    const made = await host.sh(`cat > ${config} && (${imageTar}) > /run/image.tar`, { stdin: settings });
    if (made.code !== 0) throw new Error(`no image: ${made.stderr}`);
    await podman.ask('import', '/run/image.tar', image);
    return podman;
  }

  /** As the README says it, in a copy of the real host's folder. */
  async installHook(): Promise<void> {
    const folder = '/usr/share/containers';
    const copy = `cp -a ${folder} /run/containers-share && mount --bind /run/containers-share ${folder}`;
    const install = `mkdir -p ${folder}/oci/hooks.d && inro agent oci-hook --print > ${folder}/oci/hooks.d/inro.json`;
    const made = await this.#host.sh(`${copy} && ${install}`);
    if (made.code !== 0) throw new Error(`no hook: ${made.stderr}`);
  }

  /** Its API, which is like Docker's. */
  async serve(): Promise<void> {
    const command = ['podman', ...folders, 'system', 'service', '--time=0', `unix://${podmanSocket}`];
    const service = this.#host.spawn(command, { env: { CONTAINERS_CONF: config } });
    this.#service = service;
    await eventually(
      'it answers',
      async () => (await this.#host.run(['test', '-S', podmanSocket])).code === 0 || !service.running,
    );
    if (!service.running) throw new Error(`no API:\n${service.stderr.slice(-2_000)}`);
  }

  /** Its API alone, as when it crashes: the containers live on. */
  async kill9(): Promise<void> {
    await this.#service?.kill9();
    await this.#host.run(['rm', '-f', podmanSocket]);
  }

  /** `podman ARGS` to its end. */
  run(...args: string[]): Promise<Result> {
    return this.#host.run(['podman', ...folders, ...args], {
      env: { CONTAINERS_CONF: config },
      timeoutMs: 60_000,
    });
  }

  /** What it prints, without the last newline. @throws when it fails. */
  async ask(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...args);
    if (code !== 0) throw new Error(`podman ${args.join(' ')}: exit ${code}\n${stdout}${stderr}`);
    return stdout.trimEnd();
  }

  async #end(): Promise<void> {
    await this.#service?.stop().catch(() => undefined);
    await this.run('rm', '-f', '-a', '-t', '0');
    removeCgroups('/libpod_parent/conmon');
    removeCgroups('/libpod_parent');
  }
}
