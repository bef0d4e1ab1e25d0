/** The node certificate, as the agent would check it at its start, and how long it lasts. */
import type { Identity } from '../agent/identity.js';
import { issuedMs } from '../pki/renewal_point.js';
import { ok, warn, type Finding } from './finding.js';

/** Of its life: by then the agent has renewed it, if it could. */
const lastPart = 0.2;
const dayMs = 24 * 60 * 60_000;

/** @param now ms since 1970; the certificate is valid then. */
export function certificate(
  { nodeId, clusterId, certificate: held }: Pick<Identity, 'nodeId' | 'clusterId' | 'certificate'>,
  now: number,
): Finding {
  const { notAfterMs } = held;
  const left = notAfterMs - now;
  const until = `until ${new Date(notAfterMs).toISOString()} (${lifeText(left)})`;
  const detail = `node ${nodeId} of cluster ${clusterId}, ${until}`;
  if (left > (notAfterMs - issuedMs(held)) * lastPart) return ok('certificate', detail);
  return warn(
    'certificate',
    detail,
    "the agent renews it by itself and has not yet: see that it runs and reaches a manager ('inro agent status'); once it has expired, enrol this host again with a fresh token: inro agent join --token - --manager HOST:PORT",
  );
}

function lifeText(ms: number): string {
  return ms < 2 * dayMs ? `${Math.floor(ms / 3_600_000)} h` : `${Math.floor(ms / dayMs)} days`;
}
