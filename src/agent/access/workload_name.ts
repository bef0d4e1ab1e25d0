/**
 * What an operator knows a cgroup by, from its path as container engines and systemd make it:
 *
 *   /docker/<64 hex>, /system.slice/docker-<64 hex>.scope        container <12 hex>
 *   /libpod_parent/libpod-<64 hex>, .../libpod-<64 hex>.scope    container <12 hex>
 *   /kubepods.slice/.../cri-containerd-<64 hex>.scope            container <12 hex>
 *   /system.slice/nginx.service                                  unit nginx.service
 */
const container = /(?:^|[/-])(?<id>[0-9a-f]{64})(?:\.scope)?(?:\/|$)/;
const unit = /\/(?<unit>[^/]+\.(?:service|scope))(?:\/|$)/;

/** '' for what is none of them. */
export function workloadName(cgroupPath: string): string {
  const id = container.exec(cgroupPath)?.groups?.['id'];
  if (id !== undefined) return `container ${id.slice(0, 12)}`;
  const name = unit.exec(cgroupPath)?.groups?.['unit'];
  return name === undefined ? '' : `unit ${name}`;
}
