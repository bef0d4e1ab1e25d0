/**
 * A machine of its own for a test: its own mounts (an empty /run and /var/lib), its own hostname, and its own
 * network if asked for. Everything there has its usual path, no two tests meet, and the real host sees none of
 * it. When its last process ends, the kernel takes all of it away.
 */
import { chmod, mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { Daemon, program, run, type Result, type RunOptions } from './inro.js';

export interface HostOptions {
  hostname?: string;
  /** A network of its own, where every port is free and only `lo` is up; otherwise the test's. */
  ownNetwork?: boolean;
}

export interface ManagerOptions {
  state?: string;
  listen?: string;
  socket?: string;
  'ca-cert'?: string;
  'ca-key'?: string;
  store?: string;
  'store-ca'?: string;
  'store-cert'?: string;
  'store-key'?: string;
}

export interface AgentOptions {
  state?: string;
  mount?: string;
  socket?: string;
}

/** `inro manager run`, ready. */
export interface Manager {
  readonly daemon: Daemon;
  /** HOST:PORT as bound. */
  readonly address: string;
  stop(): Promise<number>;
  kill9(): Promise<void>;
}

export class Host {
  /** A folder that the test sees too: where commands run. */
  readonly folder: string;
  readonly #holder: Daemon;
  readonly #through: readonly string[];
  readonly #daemons: Daemon[] = [];

  private constructor(folder: string, holder: Daemon, through: readonly string[]) {
    this.folder = folder;
    this.#holder = holder;
    this.#through = through;
  }

  /** A host that lives as long as the test. */
  static async of(t: ExecutionContext, options: HostOptions = {}): Promise<Host> {
    const host = await Host.open(options);
    t.teardown(() => host.close());
    return host;
  }

  static async open({ hostname = 'host-a', ownNetwork = false }: HostOptions = {}): Promise<Host> {
    const folder = await realpath(await mkdtemp(join(tmpdir(), 'inro-')));
    await mkdir(join(folder, 'tmp'));
    await writeFile(join(folder, 'inro'), `#!/bin/sh\nexec '${process.execPath}' '${program}' "$@"\n`);
    await chmod(join(folder, 'inro'), 0o755);
    const unshare = ['unshare', '-m', '-u', ...(ownNetwork ? ['-n'] : []), '--propagation', 'private'];
    const holder = new Daemon([...unshare, 'sh', '-c', script, 'host', hostname, ownNetwork ? 'lo' : '']);
    await holder.printed(/made/);
    const through = ['nsenter', '-t', String(holder.pid), '-m', '-u', ...(ownNetwork ? ['-n'] : [])];
    return new Host(folder, holder, through);
  }

  /** What to name in `ip link set DEVICE netns PID`. */
  get pid(): number {
    return this.#holder.pid;
  }

  /** What this host calls its folder. */
  get inside(): string {
    return this.folder;
  }

  get node(): string {
    return process.execPath;
  }

  /** Where the test itself finds one of this host's paths; not for a mount that inro serves. */
  outside(path: string): string {
    return `/proc/${this.#holder.pid}/root${path}`;
  }

  /** Runs `inro ARGS` here to its end. */
  inro(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    return this.run([process.execPath, program, ...args], options);
  }

  /** Runs a line of shell here; `inro` is on its PATH. */
  sh(line: string, options: RunOptions = {}): Promise<Result> {
    return this.run(['sh', '-c', line], options);
  }

  run(command: readonly string[], options: RunOptions = {}): Promise<Result> {
    return run(command, this.#here(options));
  }

  /** What the command prints, without the last newline. @throws when it fails. */
  async ask(args: readonly string[], options: RunOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.inro(args, options);
    if (code !== 0) throw new Error(`inro ${args.join(' ')}: exit ${code}\n${stdout}${stderr}`);
    return stdout.trimEnd();
  }

  /** The command's --json, parsed. @throws when it fails. */
  async json<T = Record<string, never>[]>(args: readonly string[], options: RunOptions = {}): Promise<T> {
    return JSON.parse(await this.ask([...args, '--json'], options)) as T;
  }

  /** What a reader here gets: the file's text, or cat's last words (`No such file or directory`). */
  async read(path: string): Promise<string> {
    const { code, stdout, stderr } = await this.run(['cat', path], { timeoutMs: 15_000 });
    return code === 0 ? stdout : (stderr.trimEnd().split(': ').at(-1) ?? '');
  }

  /** Starts `inro ARGS`. */
  start(args: readonly string[], options: RunOptions = {}): Daemon {
    return this.spawn([process.execPath, program, ...args], options);
  }

  spawn(command: readonly string[], options: RunOptions = {}): Daemon {
    const daemon = new Daemon(command, this.#here(options));
    this.#daemons.push(daemon);
    return daemon;
  }

  async startManager(options: ManagerOptions = {}): Promise<Manager> {
    const { state = '/var/lib/inro/manager', listen = '127.0.0.1:0', ...others } = options;
    const daemon = this.start(['manager', 'run', '--state', state, '--listen', listen, ...optional(others)]);
    const [, address = ''] = await daemon.printed(/"address":"([^"]+)".*"manager is ready"/);
    return { daemon, address, stop: () => daemon.stop(), kill9: () => daemon.kill9() };
  }

  /** Makes this host a node. @returns the node's id. */
  async join(token: string, manager: string, { state }: Pick<AgentOptions, 'state'> = {}): Promise<string> {
    const args = ['agent', 'join', '--token', '-', '--manager', manager, ...optional({ state })];
    const { nodeId } = await this.json<{ nodeId: string }>(args, { stdin: token });
    return nodeId;
  }

  /** @param options.connected false does not wait for a session with a manager. */
  async startAgent(options: AgentOptions & { connected?: boolean } = {}): Promise<Daemon> {
    const { connected = true, ...paths } = options;
    const daemon = this.start(['agent', 'run', ...optional(paths)]);
    await daemon.printed(/"agent is ready"/);
    if (connected) await daemon.printed(/"session with the manager"/);
    return daemon;
  }

  /** A cluster of one: a manager, and this host as its node. */
  async startCluster(
    options: ManagerOptions = {},
  ): Promise<{ manager: Manager; agent: Daemon; nodeId: string }> {
    const manager = await this.startManager(options);
    const nodeId = await this.join(await this.ask(['token', 'show', 'worker']), manager.address);
    return { manager, nodeId, agent: await this.startAgent() };
  }

  async startDev(args: readonly string[] = []): Promise<Daemon> {
    const daemon = this.start(['dev', ...args]);
    await daemon.printed(/inro dev: ready[^]*Ctrl-C/);
    return daemon;
  }

  /** Kills what runs here; nothing is left. */
  async close(): Promise<void> {
    await Promise.all(this.#daemons.map((daemon) => daemon.kill9()));
    await this.#holder.kill9();
    await rm(this.folder, { recursive: true, force: true });
  }

  #here({ cwd = this.folder, through = [], ...options }: RunOptions): RunOptions {
    const env = {
      PATH: `${this.folder}:${process.env['PATH'] ?? ''}`,
      TMPDIR: join(this.folder, 'tmp'),
      ...options.env,
    };
    // nsenter would keep the old root's folder: --wd is looked up inside.
    return { ...options, env, through: [...this.#through, `--wdns=${cwd}`, ...through] };
  }
}

// $1 its name, $2 `lo` when the network is its own. It then holds the namespaces until it is killed.
const script = `
mount -t tmpfs -o mode=755 tmpfs /run && mount -t tmpfs -o mode=755 tmpfs /var/lib || exit 1
echo "$1" > /proc/sys/kernel/hostname
[ -z "$2" ] || ip link set lo up || exit 1
echo made
exec sleep infinity
`;

function optional(options: Readonly<Record<string, string | undefined>>): string[] {
  return Object.entries(options).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, value],
  );
}
