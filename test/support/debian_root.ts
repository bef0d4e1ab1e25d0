/**
 * The root of a minimal Debian 12 with systemd, made once for each user and kept in his cache: ~/.cache/inro-lab. Without a
 * home to keep it in it is made for the run. It comes from where this host's own packages come from.
 */
import { accessSync, constants, mkdirSync, mkdtempSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { run } from './inro.js';

const suite = 'bookworm';
/** Another number for another content. */
const name = `${suite}-1`;
const packages = ['systemd', 'dbus'];
const makeMs = 15 * 60_000;
/** When this host is no Debian, or takes its packages from a disk. */
const usualMirror = 'http://deb.debian.org/debian/';

/** $1 the folder, $2 the suite, $3 the packages, $4 the mirror. Others wait for the lock; what a killed one left is made anew. */
const script = `
set -e
[ ! -d "$1" ] || exit 0
rm -rf -- "$1.new"
debootstrap --variant=minbase --include="$3" "$2" "$1.new" "$4" >&2
rm -rf -- "$1.new"/var/cache/apt/archives/*.deb "$1.new"/var/lib/apt/lists/*
rm -f -- "$1.new/etc/hostname" "$1.new/etc/resolv.conf"
: > "$1.new/etc/machine-id" # another at each boot, and no boot is the first one
mv -T -- "$1.new" "$1"
`;

/** @returns the folder; nobody may write to it. @throws when it cannot be made, with debootstrap's last words. */
export async function debianRoot(): Promise<string> {
  const folder = join(cache(), name);
  // What debootstrap mounts and starts ends with it.
  const alone = ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--propagation', 'private'];
  const make = ['sh', '-c', script, 'make', folder, suite, packages.join(','), await mirror()];
  const made = await run(['flock', `${folder}.lock`, ...alone, ...make], { timeoutMs: makeMs });
  if (made.code !== 0) throw new Error(`debootstrap: exit ${made.code}\n${made.stderr.slice(-4_000)}`);
  return folder;
}

/** The first that apt takes Debian's own packages from. */
async function mirror(): Promise<string> {
  const format = '$(REPO_URI) $(ORIGIN) $(CODENAME) $(COMPONENT)';
  const { stdout } = await run(['apt-get', 'indextargets', '--format', format, 'Created-By: Packages']);
  const targets = stdout.split('\n').map((line) => line.split(' '));
  // Updates and security have a codename with a dash.
  const found = targets.find(
    ([uri = '', origin, codename = '-', component]) =>
      /^https?:/.test(uri) && origin === 'Debian' && !codename.includes('-') && component === 'main',
  );
  return found?.[0] ?? usualMirror;
}

function cache(): string {
  const xdg = process.env['XDG_CACHE_HOME'] ?? '';
  try {
    const folder = join(isAbsolute(xdg) ? xdg : join(homedir(), '.cache'), 'inro-lab');
    mkdirSync(folder, { recursive: true });
    accessSync(folder, constants.W_OK);
    return folder;
  } catch {
    return mkdtempSync(join(tmpdir(), 'inro-lab-'));
  }
}
