/** Whether a manager's sealing key is to be believed. */
import { InroError } from '../model/error.js';
import { sealingNameOf } from './sealing_name.js';
import { verifyNodeCertificate, type Expected } from './verify.js';

/** As the manager sends it: proto SealingKey. */
export interface VouchedKey {
  publicKey: Uint8Array;
  certificatePem: string;
}

/**
 * @param expected.rootPem what is trusted already. @param expected.clusterId the cluster that the key must be of.
 * @returns the X25519 public key: the certificate of a manager of this cluster names it.
 * @throws unauthenticated
 */
export function checkedSealingKey(
  { publicKey, certificatePem }: VouchedKey,
  expected: Pick<Expected, 'rootPem' | 'now'> & { clusterId: string },
): Uint8Array {
  let name: string | undefined;
  try {
    name = verifyNodeCertificate(certificatePem, { ...expected, role: 'manager' }).sealingName;
  } catch (cause) {
    throw refused('does not come with a certificate of this cluster', cause);
  }
  if (name !== sealingNameOf(expected.clusterId, publicKey))
    throw refused("is not the one that the manager's certificate names");
  return publicKey;
}

function refused(why: string, cause?: unknown): InroError {
  return new InroError('unauthenticated', `the manager's sealing key ${why}`, {
    remedy:
      'somebody may stand between this host and the manager; compare the manager address with its operators',
    cause,
  });
}
