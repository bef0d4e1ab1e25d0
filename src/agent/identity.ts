/**
 * Who this node is, on disk:
 *
 *   node.key, node.crt   the key and its certificate, with the CAs between it and the root if there are any (PEM); the key is
 *                        made here and never leaves
 *   renewed.pem          only while a renewed certificate is tried: it and its key, in one file, so that both are there or none
 *   ca.crt               the cluster's root; two while the CA is rotated
 *   agent.json           where the managers are
 *
 * A renewed pair is written to renewed.pem, used, and moved to node.key and node.crt when a manager has welcomed the node
 * under it. Wherever that is cut off, one of the two pairs is whole: renewed.pem is removed last.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { isWrapped, readPrivateFile, settlePrivateFiles, writePrivateFile } from '../crypto/at_rest.js';
import { publicKeyOf, readPrivateKey, type KeyObject } from '../crypto/signing.js';
import { asInroError, InroError } from '../model/error.js';
import type { Certificate } from '../pki/certificate.js';
import { leafOf } from '../pki/chain.js';
import { readRoots } from '../pki/root.js';
import { verifyNodeCertificate } from '../pki/verify.js';
import { checkAddress } from '../rpc/address.js';
import { makeStateFolder, parseFile, readFileIfThere, removeFile, replaceFile } from '../system/files.js';

export interface Identity {
  nodeId: string;
  clusterId: string;
  certificate: Certificate;
  key: KeyObject;
  /** What is trusted, one after the other. */
  rootPem: string;
  certificatePem: string;
  keyPem: string;
  /** HOST:PORT of each manager that is known. */
  managers: readonly string[];
}

/** A certificate with its key, both PEM. */
export type KeyPair = Pick<Identity, 'certificatePem' | 'keyPem'>;

const agentFile = z.strictObject({ managers: z.array(z.string().transform(checkAddress)).min(1) });

const files = {
  key: 'node.key',
  certificate: 'node.crt',
  renewed: 'renewed.pem',
  root: 'ca.crt',
  agent: 'agent.json',
};
/** See joining.ts. */
export const joiningFile = 'joining.key';
const restore = 'restore the folder, or empty it and join again with a fresh token';

/** Private keys are wrapped, or not, as this process wants it. @returns the paths of those that were not. @throws state_unusable. */
export function settleKeys(folder: string): string[] {
  return settlePrivateFiles([files.key, files.renewed, joiningFile].map((name) => join(folder, name)));
}

/** Whether the node's key is wrapped on disk; undefined when there is none. */
export function isKeyWrapped(folder: string): boolean | undefined {
  return isWrapped(join(folder, files.key));
}

/** True when this folder has been joined with; whether the identity is any good is another question. */
export function hasIdentity(folder: string): boolean {
  return readFileIfThere(join(folder, files.certificate)) !== undefined;
}

export interface FoundIdentity {
  identity: Identity;
  /** The one before, when `identity` is a renewed one that has not been welcomed as far as the disk knows. */
  former: Identity | undefined;
  /** It is the one in renewed.pem. */
  isRenewed: boolean;
  /** Why a renewed one that is there is not used. */
  refused: InroError | undefined;
}

/** @throws no_identity when the host has not joined; bad_certificate (expired, damaged), foreign_cluster, state_unusable. */
export function loadIdentity(folder: string, now: number): Identity {
  return findIdentity(folder, now).identity;
}

/** The newest pair that can be used. Changes nothing. @throws as loadIdentity. */
export function findIdentity(folder: string, now: number): FoundIdentity {
  const renewed = attempt(() => readRenewed(folder, now));
  const own = attempt(() => readOwn(folder, now));
  if (renewed.value === undefined) {
    if (own.value !== undefined) return ownAlone(own.value, renewed.error);
    // Half of a pair may be in its place already: then the other one knows more.
    throw renewed.error?.code === 'bad_certificate' ? renewed.error : own.error;
  }
  const found = { identity: renewed.value, isRenewed: true, refused: undefined };
  if (own.value === undefined || sameCertificate(own.value, renewed.value))
    return { ...found, former: undefined };
  // The remainder of an earlier life of this folder.
  if (renewed.value.certificate.notBeforeMs < own.value.certificate.notBeforeMs)
    return ownAlone(own.value, undefined);
  return { ...found, former: own.value };
}

function ownAlone(identity: Identity, refused: InroError | undefined): FoundIdentity {
  return { identity, former: undefined, isRenewed: false, refused };
}

function sameCertificate(a: Identity, b: Identity): boolean {
  return a.certificate.fingerprint === b.certificate.fingerprint;
}

function attempt<T>(read: () => T): { value?: T; error: InroError | undefined } {
  try {
    return { value: read(), error: undefined };
  } catch (error) {
    return { error: asInroError(error) };
  }
}

/** What the disk says without the key, which may be wrapped. @throws as loadIdentity. */
export function loadCertified(
  folder: string,
  now: number,
): Pick<Identity, 'nodeId' | 'clusterId' | 'certificate' | 'managers'> {
  const certificatePem = readFileIfThere(join(folder, files.certificate));
  if (certificatePem === undefined) return loadIdentity(folder, now);
  const { rootPem, managers } = readOthers(folder, []);
  const certificate = verifyNodeCertificate(certificatePem, { rootPem, role: 'worker', now });
  const { nodeId, clusterId } = certificate;
  return { nodeId, clusterId, certificate, managers };
}

function readOwn(folder: string, now: number): Identity {
  const certificatePem = readFileIfThere(join(folder, files.certificate));
  const keyPem = readPrivateFile(join(folder, files.key));
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
  const others = readOthers(folder, keyPem === undefined ? [files.key] : []);
  parseFile(join(folder, files.key), keyPem as string, readPrivateKey, restore);
  parseFile(join(folder, files.certificate), certificatePem, leafOf, restore);
  return identityOf({ certificatePem, keyPem: keyPem as string }, others, now);
}

/** @returns undefined when there is none. */
function readRenewed(folder: string, now: number): Identity | undefined {
  const path = join(folder, files.renewed);
  const text = readPrivateFile(path);
  if (text === undefined) return undefined;
  const pair = parseFile(path, text, splitPair, restore);
  return identityOf(pair, readOthers(folder, []), now);
}

interface Others {
  rootPem: string;
  managers: readonly string[];
}

/** @param missing what is known to be. @throws state_unusable, naming all that is missing. */
function readOthers(folder: string, missing: readonly string[]): Others {
  const [rootPem, agentText] = [files.root, files.agent].map((name) => readFileIfThere(join(folder, name)));
  if (missing.length > 0 || rootPem === undefined || agentText === undefined) {
    const gone = [
      ...missing,
      ...(rootPem === undefined ? [files.root] : []),
      ...(agentText === undefined ? [files.agent] : []),
    ];
    throw new InroError('state_unusable', `${folder} lacks ${gone.join(', ')}`, { remedy: restore });
  }
  parseFile(join(folder, files.root), rootPem, readRoots, restore);
  return { rootPem, managers: parseAgentFile(folder, agentText) };
}

/** @throws bad_certificate, foreign_cluster, bad_input for the key. */
export function identityOf(pair: KeyPair, { rootPem, managers }: Others, now: number): Identity {
  const { certificatePem, keyPem } = pair;
  const key = readPrivateKey(keyPem);
  const certificate = verifyNodeCertificate(certificatePem, {
    rootPem,
    role: 'worker',
    publicKey: publicKeyOf(key),
    now,
  });
  const { nodeId, clusterId } = certificate;
  return { nodeId, clusterId, certificate, key, rootPem, certificatePem, keyPem, managers };
}

/** The key is on disk before a certificate is asked for it. @throws state_unusable. */
export function saveKey(folder: string, keyPem: string): void {
  makeStateFolder(folder);
  writePrivateFile(join(folder, files.key), keyPem);
}

/** The certificate comes last: a stop before it leaves a host that has not joined. @throws state_unusable. */
export function saveIdentity(
  folder: string,
  { rootPem, certificatePem, managers }: Pick<Identity, 'rootPem' | 'certificatePem' | 'managers'>,
): void {
  dropRenewed(folder);
  saveRoots(folder, rootPem);
  saveManagers(folder, managers);
  replaceFile(join(folder, files.certificate), certificatePem, 0o600);
}

/** @throws state_unusable. */
export function saveRoots(folder: string, rootPem: string): void {
  replaceFile(join(folder, files.root), rootPem, 0o600);
}

export function saveManagers(folder: string, managers: readonly string[]): void {
  replaceFile(join(folder, files.agent), `${JSON.stringify({ managers }, undefined, 2)}\n`, 0o600);
}

/** Beside the pair that is there. @throws state_unusable. */
export function saveRenewed(folder: string, { certificatePem, keyPem }: KeyPair): void {
  writePrivateFile(join(folder, files.renewed), `${keyPem}${certificatePem}`);
}

/** In place of the pair before it; may be repeated after it was cut off. @throws state_unusable. */
export function settleRenewed(folder: string, { certificatePem, keyPem }: KeyPair): void {
  writePrivateFile(join(folder, files.key), keyPem);
  replaceFile(join(folder, files.certificate), certificatePem, 0o600);
  dropRenewed(folder);
}

/** After a stop between the writes of `settleRenewed`. @throws state_unusable. */
export function finishRenewal(folder: string): void {
  const pair = attempt(() => splitPair(readPrivateFile(join(folder, files.renewed)) ?? '')).value;
  if (pair !== undefined && pair.keyPem === readPrivateFile(join(folder, files.key)))
    settleRenewed(folder, pair);
}

/** @throws state_unusable. */
export function dropRenewed(folder: string): void {
  removeFile(join(folder, files.renewed));
}

function splitPair(text: string): KeyPair {
  const at = text.indexOf('-----BEGIN CERTIFICATE-----');
  if (at < 0) throw new InroError('bad_certificate', 'it has no certificate');
  const pair = { keyPem: text.slice(0, at), certificatePem: text.slice(at) };
  readPrivateKey(pair.keyPem);
  leafOf(pair.certificatePem);
  return pair;
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
