/**
 * The byte strings that get hashed or signed. Each begins with its own domain, so that a signature for one
 * purpose never passes for another, and each field is preceded by its length, so that no two lists of
 * fields have one encoding. For ever: these are stored and signed.
 */
type Field = string | Uint8Array | number;

function encode(domain: string, fields: readonly Field[]): Uint8Array {
  const parts: Uint8Array[] = [Buffer.from(`inro ${domain} 1\0`)];
  for (const field of fields) {
    const bytes =
      typeof field === 'number' ? unsigned64(field) : typeof field === 'string' ? Buffer.from(field) : field;
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    parts.push(length, bytes);
  }
  return Buffer.concat(parts);
}

function unsigned64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

/** What is hashed for the name by which the CA vouches for a manager's sealing key. */
export function sealingKeyStatement(clusterId: string, publicKey: Uint8Array): Uint8Array {
  return encode('sealing key', [clusterId, publicKey]);
}

/** What a node signs to prove that a session key is its own, for this stream and this boot. */
export function sessionKeyStatement(s: {
  nonce: Uint8Array;
  clusterId: string;
  nodeId: string;
  bootId: string;
  sessionKey: Uint8Array;
}): Uint8Array {
  return encode('session key', [s.nonce, s.clusterId, s.nodeId, s.bootId, s.sessionKey]);
}

/** What is hashed of a join token's secret: of a token made to measure a manager keeps nothing else. */
export function joinTokenStatement(clusterId: string, secret: Uint8Array): Uint8Array {
  return encode('join token', [clusterId, secret]);
}

/** What a node's former key signs, so that a host that enrols again with a new key keeps its node id. */
export function enrolAgainStatement(s: {
  clusterId: string;
  nodeId: string;
  /** The new one, as SubjectPublicKeyInfo. */
  publicKey: Uint8Array;
}): Uint8Array {
  return encode('enrol again', [s.clusterId, s.nodeId, s.publicKey]);
}

/** A node's word that a wipe is done. */
export interface ReceiptFields {
  clusterId: string;
  nodeId: string;
  /** Drawn by the agent at its start, so that run and number together name one receipt of the node. */
  runId: string;
  /** Counts the run's receipts from 1. */
  number: number;
  secretId: string;
  version: number;
  /** Of the tasks that the copy was for. Before they were named, statements had no such field. */
  taskIds?: readonly string[];
  reason: string;
  wipedMs: number;
  durationUs: number;
  /** The kernel had not let go of mapped pages when the wipe returned: whoever mapped the file may see them yet. */
  mapped: boolean;
}

/** What a node signs when it says that a wipe is done. */
export function receiptStatement(r: ReceiptFields): Uint8Array {
  const { clusterId, nodeId, runId, number, secretId, version, reason, wipedMs, durationUs, mapped } = r;
  const fields = [clusterId, nodeId, runId, number, secretId, version, reason, wipedMs, durationUs];
  const { taskIds = [] } = r;
  return encode('receipt', [...fields, mapped ? 1 : 0, ...(taskIds.length > 0 ? [taskIds.join()] : [])]);
}

/** A line of the control audit. */
export interface AuditFields {
  number: number;
  atMs: number;
  action: string;
  object: string;
  actor: string;
  actorId: string;
  role: string;
  serial: string;
  address: string;
  outcome: string;
  reason: string;
  /** The digest of the line before. */
  previous: Uint8Array;
}

/** What is hashed of a line of the control audit; the line after it names the hash. */
export function auditStatement(clusterId: string, a: AuditFields): Uint8Array {
  const who = [a.actor, a.actorId, a.role, a.serial, a.address];
  const fields = [clusterId, a.number, a.atMs, a.action, a.object, ...who, a.outcome, a.reason, a.previous];
  return encode('audit', fields);
}

/** What a content key belongs to; hashed beside it wherever it is wrapped. */
export interface Binding {
  clusterId: string;
  secretId: string;
  version: number;
  /** SHA-256 of the value's box. */
  ciphertextDigest: Uint8Array;
}

export function bindingStatement(purpose: string, b: Binding): Uint8Array {
  return encode(`content key ${purpose}`, [b.clusterId, b.secretId, b.version, b.ciphertextDigest]);
}
