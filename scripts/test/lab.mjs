/** What the lab tests need beyond a plain Debian; the product itself needs none of it. */
import { spawnSync } from 'node:child_process';

const packages = [
  'busybox-static',
  'clang',
  'curl',
  'debootstrap',
  'docker.io',
  'etcd-server',
  'fuse3',
  'gdb',
  'golang-cfssl',
  'golang-go',
  'iproute2',
  'iptables',
  'libclang-rt-dev',
  'nginx',
  'openssh-client',
  'openssl',
  'podman',
  'postgresql',
  'rsync',
  'runc',
  'systemd-container',
  'util-linux',
];
/** Tests start these where they end them; on the host itself they are not to run, now or after a boot. */
const servers = ['docker', 'docker.socket', 'containerd', 'etcd', 'nginx', 'postgresql'];
const installLimitMs = 10 * 60_000;

// /usr/sbin/policy-rc.d: whether a package that is being installed may start its services. 101 says no.
const startNothing = `
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap 'rm -f $policy' EXIT
  trap 'exit 1' HUP INT TERM
  printf '#!/bin/sh\\nexit 101\\n' > $policy && chmod 755 $policy
fi`;

/** Installs what is missing, at once, and says so. False when that fails. */
export function installLabPackages(say) {
  const missing = packages.filter((name) => !installed(name));
  if (missing.length === 0) return true;
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  say(`installing ${missing.join(', ')} for the lab tests`);
  const disable = servers
    .filter(
      (name) =>
        missing.includes(name) ||
        (name === 'etcd' && missing.includes('etcd-server')) ||
        (missing.includes('docker.io') && /^(docker|containerd)/.test(name)),
    )
    .map((name) => `systemctl --quiet disable ${name}`);
  const script = [`${startNothing}\napt-get update`, command, ...disable].join(' && ');
  const apt = spawnSync('sh', ['-c', script], {
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
