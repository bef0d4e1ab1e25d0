/** A real Docker engine on a test's host, in the host's own folders, with one image: busybox alone. */
import { readdirSync, readFileSync, rmdirSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import type { Host } from './host.js';
import { image, imageTar } from './image.js';
import { eventually, type Daemon, type Result } from './inro.js';

export const engineSocket = '/run/docker.sock';

export class Docker {
  readonly #host: Host;
  readonly #parent: string;
  readonly #more: readonly string[];
  #daemon: Daemon | undefined;

  private constructor(host: Host, more: readonly string[]) {
    this.#host = host;
    this.#more = more;
    this.#parent = `/inro-test-${host.pid}`;
  }

  /** Answers, and has the image. Everything that it started ends with the test. @param more options of the engine. */
  static async on(t: ExecutionContext, host: Host, more: readonly string[] = []): Promise<Docker> {
    const docker = new Docker(host, more);
    t.teardown(() => docker.#end());
    await docker.start();
    await docker.importAs(image);
    return docker;
  }

  /** An image with busybox alone. */
  async importAs(name: string, command: readonly string[] = []): Promise<void> {
    const change = command.length === 0 ? '' : `-c 'CMD ${JSON.stringify(command)}'`;
    const made = await this.#host.sh(
      `(${imageTar}) | docker -H unix://${engineSocket} import ${change} - ${name}`,
    );
    if (made.code !== 0) throw new Error(`no image: ${made.stderr}`);
  }

  get pid(): number {
    return this.#daemon?.pid ?? 0;
  }

  async start(): Promise<void> {
    const folders = [
      '--data-root',
      '/run/docker-data',
      '--exec-root',
      '/run/docker-exec',
      '--pidfile',
      '/run/docker.pid',
    ];
    const alone = ['--bridge=none', '--iptables=false', '--cgroup-parent', this.#parent];
    this.#daemon = this.#host.spawn([
      'dockerd',
      '-H',
      `unix://${engineSocket}`,
      ...folders,
      ...alone,
      ...this.#more,
    ]);
    await eventually(
      'the engine answers',
      async () => (await this.run('info')).code === 0 || !(this.#daemon?.running ?? false),
    );
    if (!(this.#daemon?.running ?? false))
      throw new Error(`no engine:\n${this.#daemon?.stderr.slice(-2_000)}`);
  }

  /** SIGKILL, as when it crashes; what runs its containers ends with it, and they live on until it is started again. */
  async kill9(): Promise<void> {
    await this.#daemon?.kill9();
    // An engine takes a pid that nobody has reaped yet for a running program, and waits for it.
    await this.#host.sh('rm -f /run/docker-exec/containerd/containerd.pid /run/docker.pid');
  }

  /** `docker ARGS` to its end. */
  run(...args: string[]): Promise<Result> {
    return this.#host.run(['docker', '-H', `unix://${engineSocket}`, ...args], { timeoutMs: 60_000 });
  }

  /** What it prints, without the last newline. @throws when it fails. */
  async ask(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...args);
    if (code !== 0) throw new Error(`docker ${args.join(' ')}: exit ${code}\n${stdout}${stderr}`);
    return stdout.trimEnd();
  }

  /** The words of `docker run` for a container without a network that has a service as its volume. */
  static volume(service: string): string[] {
    return ['--network', 'none', '--mount', `type=volume,src=${service},dst=/run/secrets,volume-driver=inro`];
  }

  async #end(): Promise<void> {
    const { stdout } = await this.run('ps', '-aq');
    if (stdout.trim() !== '') await this.run('rm', '-f', ...stdout.trim().split('\n'));
    await this.#daemon?.stop().catch(() => undefined);
    // Each container has a process of the engine beside it, which outlives a killed engine.
    for (const pid of processesIn('/run/docker-exec', this.#host)) process.kill(pid, 'SIGKILL');
    removeCgroups(this.#parent);
  }
}

/** Of this host alone: by the mounts that they see. */
function processesIn(folder: string, host: Host): number[] {
  const namespace = (pid: number) => readFileSync(`/proc/${pid}/mountinfo`, 'utf8').split('\n')[0];
  const own = namespace(host.pid);
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      try {
        return (
          pid > 1 && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(folder) && namespace(pid) === own
        );
      } catch {
        return false; // it has ended
      }
    });
}

/** Where they are empty. */
export function removeCgroups(parent: string): void {
  for (const hierarchy of readdirSync('/sys/fs/cgroup')) {
    try {
      rmdirSync(`/sys/fs/cgroup/${hierarchy}${parent}`);
    } catch {
      continue; // not there, or not ours to end
    }
  }
}
