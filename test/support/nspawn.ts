/**
 * A machine with systemd as its first process: Debian 12 in a container (systemd-nspawn), booted in a second. What it writes
 * goes to memory; it has /dev/fuse and may lock memory, and no network but its own lo. All of it goes with the test, however
 * that ends.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { debianRoot } from './debian_root.js';
import { Daemon, eventually, run, type Result, type RunOptions } from './inro.js';

/** Where `folder` is in the machine. */
const shared = '/mnt';

const environment = ['env', '-i', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin', 'HOME=/root', 'LC_ALL=C.UTF-8'];

/** $1 its cgroups, the rest nspawn's words. A /run of its own, so that nspawn leaves nothing in the host's. */
const start = `
for cgroup in $1; do echo 0 > "$cgroup/cgroup.procs" || exit 1; done
mount -t tmpfs -o mode=755 tmpfs /run || exit 1
shift
exec "$@"
`;

/** stdin ends when the test process ends, however it does; then what is in the cgroups ends, and they go. */
const guard = `
cat > /dev/null
for n in $(seq 100); do
  find "$@" -name cgroup.procs -exec cat {} + 2>/dev/null | xargs -r kill -9 2>/dev/null
  find "$@" -depth -type d -exec rmdir {} + 2>/dev/null
  [ -e "$1" ] || [ -e "$2" ] || break
  sleep 0.1
done
`;

export class Machine {
  /** A folder that the test sees too; the machine has it at /mnt. */
  readonly folder: string;
  readonly inside = shared;
  /** That of the package, once it is installed. */
  readonly node = '/usr/lib/inro/bin/node';
  readonly #daemons: Daemon[] = [];
  readonly #nspawn: Daemon;
  readonly #init: number;

  private constructor(folder: string, nspawn: Daemon, init: number) {
    this.folder = folder;
    this.#nspawn = nspawn;
    this.#init = init;
  }

  /** Resolves when all its units are up. @throws when one has failed. */
  static async boot(t: ExecutionContext): Promise<Machine> {
    const root = await debianRoot();
    const folder = mkdtempSync(join(tmpdir(), 'machine-'));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const name = `inro-${basename(folder).slice('machine-'.length).toLowerCase()}`;
    const cgroups = hierarchies().map((hierarchy) => join(hierarchy, name));
    const end = spawn('sh', ['-c', guard, 'guard', ...cgroups], {
      cwd: '/',
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    t.teardown(async () => {
      const ended = once(end, 'exit');
      end.stdin?.end();
      await ended;
    });
    for (const cgroup of cgroups) mkdirSync(cgroup);

    // The first process of a container outlives a killed nspawn, but not the pid namespace that both are in.
    const alone = ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
    const machine = ['--quiet', '--register=no', '--keep-unit', `--machine=${name}`, '--console=pipe'];
    const rights = ['--private-network', '--capability=CAP_IPC_LOCK', '--system-call-filter=memfd_secret'];
    const files = [
      '--volatile=overlay',
      '--bind=/dev/fuse',
      `--bind=${folder}:${shared}`,
      `--directory=${root}`,
    ];
    const nspawn = new Daemon(
      [...alone, 'sh', '-c', start, 'start', cgroups.join(' ')].concat([
        'systemd-nspawn',
        ...machine,
        ...rights,
        ...files,
        '--boot',
      ]),
      { env: { SYSTEMD_NSPAWN_LOCK: '0', TMPDIR: '/tmp' } }, // several machines may have the same root
    );
    t.teardown(() => nspawn.kill9());
    try {
      const init = await eventually('the machine has a first process', async () => initBelow(nspawn));
      const booted = new Machine(folder, nspawn, init);
      t.teardown(() => booted.stop());
      await booted.#up();
      return booted;
    } catch (error) {
      const said = `${nspawn.stdout}${nspawn.stderr}`;
      throw new Error(`the machine does not boot: ${(error as Error).message}\n${said}`, { cause: error });
    }
  }

  /** Runs a command there as root, to its end. */
  run(command: readonly string[], options: RunOptions = {}): Promise<Result> {
    return run(command, this.#there(options));
  }

  /** Starts a command there as root. It ends with the machine. */
  spawn(command: readonly string[], options: RunOptions = {}): Daemon {
    const daemon = new Daemon(command, this.#there(options));
    this.#daemons.push(daemon);
    return daemon;
  }

  #there(options: RunOptions): RunOptions {
    const inside = ['nsenter', '--target', String(this.#init), '--all', ...environment];
    return { ...options, through: [...inside, ...(options.through ?? [])] };
  }

  /** Runs a line of shell there. */
  sh(line: string, options: RunOptions = {}): Promise<Result> {
    return this.run(['sh', '-c', line], options);
  }

  /** What a line of shell prints, without the last newline. @throws when it fails. */
  async ask(line: string, options: RunOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.sh(line, options);
    if (code !== 0) {
      const journal = await this.run(['journalctl', '--no-pager', '--lines=20']);
      throw new Error(`${line}: exit ${code}\n${stdout}${stderr}\n${journal.stdout}`);
    }
    return stdout.replace(/\n$/, '');
  }

  systemctl(...args: string[]): Promise<Result> {
    return this.run(['systemctl', '--no-pager', ...args]);
  }

  /** One property of a unit: `MainPID`, `ActiveState`. */
  async property(unit: string, property: string): Promise<string> {
    return (await this.systemctl('show', '--value', `--property=${property}`, unit)).stdout.trimEnd();
  }

  /** What a unit has logged, each line as it printed it. */
  async journal(unit: string): Promise<string> {
    return (await this.run(['journalctl', '--no-pager', '--output=cat', '--unit', unit])).stdout;
  }

  /** As if its plug were pulled. */
  async stop(): Promise<void> {
    await Promise.all([...this.#daemons, this.#nspawn].map((one) => one.kill9()));
  }

  async #up(): Promise<void> {
    const state = await eventually('systemd answers', async () => {
      const { stdout } = await this.systemctl('is-system-running', '--wait');
      return ['running', 'degraded'].find((word) => stdout === `${word}\n`);
    });
    if (state !== 'running') throw new Error((await this.systemctl('--failed')).stdout);
  }
}

/** Where systemd makes its groups: one that it has for itself (v1), and the unified one. */
function hierarchies(): string[] {
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '));
  const found = mounts.filter(
    ([, , type, options]) =>
      type === 'cgroup2' || (type === 'cgroup' && options?.split(',').includes('name=systemd')),
  );
  return found.map(([, path = '']) => path);
}

/** The process below nspawn that is the first one of a pid namespace within its own. */
function initBelow(nspawn: Daemon): number | undefined {
  if (!nspawn.running) throw new Error('systemd-nspawn has ended');
  for (let pids = [nspawn.pid]; pids.length > 0; pids = pids.flatMap(childrenOf)) {
    const found = pids.find((pid) => pidsOf(pid).length > 2 && pidsOf(pid).at(-1) === '1');
    if (found !== undefined) return found;
  }
  return undefined;
}

function childrenOf(pid: number): number[] {
  return read(`/proc/${pid}/task/${pid}/children`).split(' ').filter(Boolean).map(Number);
}

/** Its pid in each namespace, from ours to its own. */
function pidsOf(pid: number): string[] {
  const [, pids = ''] = /^NSpid:\s*(.*)$/m.exec(read(`/proc/${pid}/status`)) ?? [];
  return pids.split(/\s+/);
}

/** '' when the process has ended. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}
