/** inro ca inspect|update */
import { durationText, parseDuration } from '../../model/duration.js';
import { Control, type Ca } from '../../proto/gen/inro/v1/control_pb.js';
import { call } from '../../rpc/client.js';
import { withManager, type ManagerOption } from '../operator.js';
import { ago, iso, printFacts, printJson, printLine } from '../print.js';

interface Common extends ManagerOption {
  json?: boolean;
}

export async function caInspect({ json, ...options }: Common): Promise<void> {
  const ca = await withManager(options, (manager) => call(manager, Control, 'getCa', {}));
  if (json === true) return printJson(caJson(ca));
  printFacts([
    ['Cluster', ca.clusterId],
    ['Root', `SHA-256 ${ca.rootFingerprint}`],
    ['Root expires', `${iso(ca.rootExpiresMs)} (${ago(ca.rootExpiresMs)})`],
    ['Cert expiry', `${durationText(Number(ca.certificateLifetimeMs))} from their issue`],
  ]);
}

export async function caUpdate({
  certExpiry,
  json,
  ...options
}: Common & { certExpiry: string }): Promise<void> {
  const certificateLifetimeMs = BigInt(parseDuration(certExpiry));
  const ca = await withManager(options, (manager) =>
    call(manager, Control, 'updateCa', { certificateLifetimeMs }),
  );
  if (json === true) return printJson(caJson(ca));
  const text = durationText(Number(ca.certificateLifetimeMs));
  printLine(`certificates issued from now on last ${text}; those that are out stay as they are`);
}

function caJson(ca: Ca) {
  return {
    clusterId: ca.clusterId,
    rootFingerprint: ca.rootFingerprint,
    rootExpiresAt: iso(ca.rootExpiresMs),
    rootPem: ca.rootPem,
    certExpiryMs: Number(ca.certificateLifetimeMs),
  };
}
