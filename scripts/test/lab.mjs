/** What the lab tests need beyond a plain Debian; the product itself needs none of it. */
import { spawnSync } from 'node:child_process';

const packages = [
  'busybox-static',
  'clang',
  'debootstrap',
  'fuse3',
  'gdb',
  'iproute2',
  'rsync',
  'systemd-container',
  'util-linux',
];
const installLimitMs = 10 * 60_000;

/** Installs what is missing, at once, and says so. False when that fails. */
export function installLabPackages(say) {
  const missing = packages.filter((name) => !installed(name));
  if (missing.length === 0) return true;
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  say(`installing ${missing.join(', ')} for the lab tests`);
  const apt = spawnSync('sh', ['-c', `apt-get update && ${command}`], {
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    timeout: installLimitMs,
  });
  if (apt.status === 0) return true;
  process.stderr.write(`${apt.stdout}${apt.stderr}`);
  say(`the lab tests need ${missing.join(', ')}; install with: ${command}`);
  return false;
}

function installed(name) {
  const query = spawnSync('dpkg-query', ['-W', '-f=${db:Status-Status}', name], { encoding: 'utf8' });
  return query.stdout === 'installed';
}
