/** What a node says of itself, made fit to be kept: a node must not fill the store or upset a terminal. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { printable } from '../model/name.js';
import type { Certificate } from '../pki/certificate.js';
import type { NodeDescription, NodeDescriptionSchema } from '../proto/gen/inro/v1/common_pb.js';
import type { NodeRecord } from '../proto/gen/inro/v1/records_pb.js';
import type { Issued } from './authorities.js';
import { managerLimits } from './limits.js';
import { keyDigest } from './refusals.js';

export function keptDescription(said: NodeDescription): MessageInitShape<typeof NodeDescriptionSchema> {
  const text = (value: string): string => printable(value, managerLimits.maxDescriptionChars);
  const { cpus, memoryBytes, swapBytes } = said;
  return {
    hostname: text(said.hostname),
    platform: text(said.platform),
    architecture: text(said.architecture),
    distribution: text(said.distribution),
    kernel: text(said.kernel),
    agentVersion: text(said.agentVersion),
    cpus,
    memoryBytes,
    swapBytes,
  };
}

/** Its latest certificate from now on. */
export function noteCertificate(
  node: NodeRecord,
  { certificate, issuedCa }: Pick<Issued, 'certificate' | 'issuedCa'>,
): void {
  const digest = keyDigest(certificate.publicKey);
  if (Buffer.compare(node.keyDigest, digest) !== 0) {
    node.formerKeyDigest = node.keyDigest;
    node.keyDigest = digest;
  }
  node.issuedCa = issuedCa;
  node.certificateSerial = certificate.serial;
  node.certificateExpiresMs = BigInt(certificate.notAfterMs);
}

/** Whether its key is the node's latest one, or the one before, whose successor may never have reached it. */
export function isCertifiedFor(node: NodeRecord, certificate: Certificate): boolean {
  // An earlier version has kept serials alone.
  if (node.keyDigest.length === 0) return node.certificateSerial === certificate.serial;
  const digest = keyDigest(certificate.publicKey);
  return [node.keyDigest, node.formerKeyDigest].some((known) => Buffer.compare(known, digest) === 0);
}
