/**
 * A user of a test's host who is not root: a name, a home, a folder for sockets, and no right to anything else. The host
 * gets a /dev/fuse that all may open, as udev makes it, and an /etc/passwd and /etc/fuse.conf of its own.
 */
import { chmod } from 'node:fs/promises';
import type { Host } from './host.js';
import type { Daemon, Result, RunOptions } from './inro.js';

export interface UserOptions extends RunOptions {
  /** RLIMIT_MEMLOCK; 8 MiB if not given, as systemd sets it. */
  lockedKiB?: number;
  /** Words that are still root's, in front of those that make him of it. */
  before?: readonly string[];
  /** More options of setpriv(1). */
  privileges?: readonly string[];
}

export class OrdinaryUser {
  readonly host: Host;
  readonly uid: number;
  /** XDG_RUNTIME_DIR, 0700; HOME and temporary files are there too, because it goes with the host. */
  readonly folder: string;
  readonly mount: string;

  private constructor(host: Host, uid: number) {
    this.host = host;
    this.uid = uid;
    this.folder = `/run/user/${uid}`;
    this.mount = `${this.folder}/inro/secrets`;
  }

  static async on(host: Host, name: string, uid: number): Promise<OrdinaryUser> {
    await chmod(host.folder, 0o711); // `inro` is in it
    const made = await host.sh(script, { env: { NAME: name, ID: String(uid) } });
    if (made.code !== 0) throw new Error(made.stderr);
    return new OrdinaryUser(host, uid);
  }

  /** How a command of his is run. */
  as(options: UserOptions = {}): RunOptions {
    const { lockedKiB = 8192, before = [], privileges = [], env = {}, ...others } = options;
    const { uid, folder } = this;
    const own = { XDG_RUNTIME_DIR: folder, HOME: folder, TMPDIR: folder };
    const ids = ['--reuid', `${uid}`, '--regid', `${uid}`, '--clear-groups'];
    const become = ['setpriv', ...ids, '--pdeathsig', 'KILL', ...privileges];
    const limit = ['prlimit', `--memlock=${lockedKiB * 1024}`];
    return { cwd: '/', ...others, env: { ...own, ...env }, through: [...before, ...limit, ...become] };
  }

  inro(args: readonly string[], options: UserOptions = {}): Promise<Result> {
    return this.host.inro(args, this.as(options));
  }

  ask(args: readonly string[], options: UserOptions = {}): Promise<string> {
    return this.host.ask(args, this.as(options));
  }

  sh(line: string, options: UserOptions = {}): Promise<Result> {
    return this.host.sh(line, this.as(options));
  }

  /** As Host.read. */
  async read(path: string): Promise<string> {
    const { code, stdout, stderr } = await this.host.run(['cat', path], this.as({ timeoutMs: 15_000 }));
    return code === 0 ? stdout : (stderr.trimEnd().split(': ').at(-1) ?? '');
  }

  start(args: readonly string[], options: UserOptions = {}): Daemon {
    return this.host.start(args, this.as(options));
  }

  async startDev(args: readonly string[] = [], options: UserOptions = {}): Promise<Daemon> {
    const daemon = this.start(['dev', ...args], options);
    await daemon.printed(/inro dev: ready[^]*Ctrl-C/);
    return daemon;
  }

  /** A secret that one task here has, as the file /SERVICE/NAME of the mount. */
  async give(service: string, name: string, value: string, reference = ''): Promise<void> {
    await this.ask(['secret', 'create', name, '-'], { stdin: value });
    await this.ask(['service', 'create', '--name', service, '--secret', `source=${name}${reference}`]);
  }
}

const script = `
set -e
if [ ! -e /run/fuse ]; then
  mknod -m 666 /run/fuse c 10 229
  mount --bind /run/fuse /dev/fuse
  cp /etc/passwd /run/passwd
  chmod 644 /run/passwd
  mount --bind /run/passwd /etc/passwd
  : > /run/fuse.conf
  mount --bind /run/fuse.conf /etc/fuse.conf
fi
echo "$NAME:x:$ID:$ID::/run/user/$ID:/bin/sh" >> /run/passwd
mkdir -p "/run/user/$ID"
chown "$ID:$ID" "/run/user/$ID"
chmod 700 "/run/user/$ID"
`;
