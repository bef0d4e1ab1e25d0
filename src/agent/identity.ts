/**
 * Who this node is, on disk: node.key, node.crt (PEM), ca.crt, agent.json (where the managers are).
 * The private key is made here and never leaves.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { publicKeyOf, readPrivateKey, type KeyObject } from '../crypto/signing.js';
import { InroError } from '../model/error.js';
import { readCertificate, type Certificate } from '../pki/certificate.js';
import { readRoot } from '../pki/root.js';
import { verifyNodeCertificate } from '../pki/verify.js';
import { checkAddress } from '../rpc/address.js';
import { makeStateFolder, parseFile, readFileIfThere, replaceFile } from '../system/files.js';

export interface Identity {
  nodeId: string;
  clusterId: string;
  certificate: Certificate;
  key: KeyObject;
  rootPem: string;
  certificatePem: string;
  keyPem: string;
  /** HOST:PORT of each manager that is known. */
  managers: readonly string[];
}

const agentFile = z.strictObject({ managers: z.array(z.string().transform(checkAddress)).min(1) });

const files = { key: 'node.key', certificate: 'node.crt', root: 'ca.crt', agent: 'agent.json' };

/** True when this folder has been joined with; whether the identity is any good is another question. */
export function hasIdentity(folder: string): boolean {
  return readFileIfThere(join(folder, files.certificate)) !== undefined;
}

/** @throws no_identity when the host has not joined; bad_certificate (expired, damaged), foreign_cluster, state_unusable. */
export function loadIdentity(folder: string, now: number): Identity {
  const [certificatePem, keyPem, rootPem, agentText] = [
    files.certificate,
    files.key,
    files.root,
    files.agent,
  ].map((name) => readFileIfThere(join(folder, name)));
  if (certificatePem === undefined) {
    throw new InroError(
      'no_identity',
      `this host has not joined a cluster (no ${join(folder, files.certificate)})`,
      {
        remedy:
          "on a manager type 'inro token show worker', then here: inro agent join --token - --manager HOST:PORT",
      },
    );
  }
  if (keyPem === undefined || rootPem === undefined || agentText === undefined) {
    const gone = [
      [keyPem, files.key],
      [rootPem, files.root],
      [agentText, files.agent],
    ].filter(([text]) => text === undefined);
    throw new InroError('state_unusable', `${folder} lacks ${gone.map(([, name]) => name).join(', ')}`, {
      remedy: 'restore the folder, or empty it and join again with a fresh token',
    });
  }
  const remedy = 'restore the folder, or empty it and join again with a fresh token';
  const key = parseFile(join(folder, files.key), keyPem, readPrivateKey, remedy);
  parseFile(join(folder, files.root), rootPem, readRoot, remedy);
  parseFile(join(folder, files.certificate), certificatePem, readCertificate, remedy);
  const certificate = verifyNodeCertificate(certificatePem, {
    rootPem,
    role: 'worker',
    publicKey: publicKeyOf(key),
    now,
  });
  const { nodeId, clusterId } = certificate;
  return {
    nodeId,
    clusterId,
    certificate,
    key,
    rootPem,
    certificatePem,
    keyPem,
    managers: parseAgentFile(folder, agentText),
  };
}

/** The key is on disk before a certificate is asked for it. @throws state_unusable. */
export function saveKey(folder: string, keyPem: string): void {
  makeStateFolder(folder);
  replaceFile(join(folder, files.key), keyPem, 0o600);
}

/** The certificate comes last: a stop before it leaves a host that has not joined. @throws state_unusable. */
export function saveIdentity(
  folder: string,
  { rootPem, certificatePem, managers }: Pick<Identity, 'rootPem' | 'certificatePem' | 'managers'>,
): void {
  replaceFile(join(folder, files.root), rootPem, 0o600);
  saveManagers(folder, managers);
  replaceFile(join(folder, files.certificate), certificatePem, 0o600);
}

export function saveManagers(folder: string, managers: readonly string[]): void {
  replaceFile(join(folder, files.agent), `${JSON.stringify({ managers }, undefined, 2)}\n`, 0o600);
}

function parseAgentFile(folder: string, text: string): string[] {
  try {
    return agentFile.parse(JSON.parse(text)).managers;
  } catch (error) {
    throw new InroError('state_unusable', `${join(folder, files.agent)} is damaged`, {
      remedy: 'write {"managers": ["HOST:PORT"]} into it, or join again with a fresh token',
      cause: error,
    });
  }
}
