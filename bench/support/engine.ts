/** One engine of a Swarm, on a host of its own, all in one process namespace: whatever ends that, ends its containers too. */
import { existsSync, lstatSync, readdirSync, rmdirSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { pause, type Daemon } from '../../test/support/inro.js';
import type { Host } from '../../test/support/machine.js';
import { children } from './host.js';

const apiVersion = 'v1.41';
const containers = '/var/lib/docker/containers';
const cgroups = '/sys/fs/cgroup';
/** Then the process id of the host that it is for. */
const cgroupPrefix = 'inro-bench-';
const removeTries = 100;

export class Engine {
  readonly host: Host;
  readonly #daemon: Daemon;
  readonly #cgroup: string;
  /** Of dockerd, as this process sees it. */
  readonly pid: number;

  private constructor(host: Host, daemon: Daemon, cgroup: string, pid: number) {
    this.host = host;
    this.#daemon = daemon;
    this.#cgroup = cgroup;
    this.pid = pid;
  }

  static async start(host: Host): Promise<Engine> {
    await removeDeadCgroups();
    const cgroup = `/${cgroupPrefix}${host.pid}`;
    const alone = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc'];
    const daemon = host.spawn([...alone, 'dockerd', '--cgroup-parent', cgroup]);
    await daemon.printed(/API listen on/);
    const [pid] = children(daemon.pid);
    if (pid === undefined) throw new Error('the engine is no child of what started it');
    return new Engine(host, daemon, cgroup, pid);
  }

  get socket(): string {
    return this.host.outside('/run/docker.sock');
  }

  /** An image that is one static program: no registry is needed. */
  async import(name: string, folder: string, program: string): Promise<void> {
    const line = `tar -C '${folder}' -c '${program}' | docker -H unix:///run/docker.sock import -c 'ENTRYPOINT ["/${program}"]' - ${name}`;
    const { code, stderr } = await this.host.sh(line);
    if (code !== 0) throw new Error(`no image: ${stderr}`);
  }

  /** A call of the Engine's API. @throws when it refuses. */
  async call<T>(method: 'GET' | 'POST' | 'DELETE', path: string, body?: object): Promise<T> {
    const text = await new Promise<string>((resolve, reject) => {
      const sent = request(
        {
          socketPath: this.socket,
          method,
          path: `/${apiVersion}${path}`,
          headers: { 'content-type': 'application/json' },
        },
        (answer) => {
          let heard = '';
          answer.setEncoding('utf8').on('data', (data: string) => (heard += data));
          answer.on('end', () => {
            if ((answer.statusCode ?? 500) < 300) resolve(heard);
            else reject(new Error(`${method} ${path}: ${answer.statusCode} ${heard}`));
          });
        },
      );
      sent.on('error', reject);
      sent.end(body && JSON.stringify(body));
    });
    return (text === '' ? undefined : JSON.parse(text)) as T;
  }

  /** Where it keeps what containers of services read as /run/secrets: each on a tmpfs of its own, as dockerd sees it. */
  secretFiles(): string[] {
    return this.#containers().flatMap((id) => {
      const folder = `${containers}/${id}/mounts/secrets`;
      const seen = this.#seen(folder);
      return existsSync(seen) ? readdirSync(seen).map((file) => `${folder}/${file}`) : [];
    });
  }

  /** Runs a program where dockerd runs. */
  spawn(command: readonly string[]): Daemon {
    return this.host.spawn(['nsenter', '-t', String(this.pid), '-m', ...command]);
  }

  /** No container is left, nor what it had. */
  async isEmpty(): Promise<boolean> {
    return (await this.call<unknown[]>('GET', '/containers/json?all=1')).length === 0;
  }

  async end(): Promise<void> {
    await this.#daemon.kill9();
    await this.host.close();
    for (const hierarchy of readdirSync(cgroups)) await removeCgroup(join(cgroups, hierarchy, this.#cgroup));
  }

  #containers(): string[] {
    const seen = this.#seen(containers);
    return existsSync(seen) ? readdirSync(seen) : [];
  }

  #seen(path: string): string {
    return `/proc/${this.pid}/root${path}`;
  }
}

/** Those of a run that was killed: the kernel ends its processes, and leaves these. */
async function removeDeadCgroups(): Promise<void> {
  for (const hierarchy of readdirSync(cgroups)) {
    const folder = join(cgroups, hierarchy);
    if (!lstatSync(folder).isDirectory()) continue;
    for (const name of readdirSync(folder).filter((each) => each.startsWith(cgroupPrefix)))
      if (!existsSync(`/proc/${name.slice(cgroupPrefix.length)}`)) await removeCgroup(join(folder, name));
  }
}

/** With those below it, when the last processes are gone. */
async function removeCgroup(path: string): Promise<void> {
  if (!existsSync(path)) return;
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) await removeCgroup(join(path, entry.name));
  for (let tries = 0; tries < removeTries; tries++) {
    try {
      rmdirSync(path);
      return;
    } catch {
      await pause(20);
    }
  }
}
