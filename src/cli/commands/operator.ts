/** inro operator create|ls|inspect|update|revoke|rm|renew|request */
import { closeSync, fsyncSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { generateNodeKey } from '../../crypto/signing.js';
import { parseDuration } from '../../model/duration.js';
import { InroError } from '../../model/error.js';
import { checkName } from '../../model/name.js';
import { checkGrants, checkOperatorRole } from '../../model/operator.js';
import { createCsr, readCsr } from '../../pki/csr.js';
import { isVouchedFor, readRoot } from '../../pki/root.js';
import { Control, type IssuedOperator, type Operator } from '../../proto/gen/inro/v1/control_pb.js';
import { checkAddress } from '../../rpc/address.js';
import { call } from '../../rpc/client.js';
import { replaceFile } from '../../system/files.js';
import { systemClock } from '../../system/clock.js';
import { identityText, parseIdentity, type OperatorIdentity } from '../identity_file.js';
import { identityPath, removeEach, withManager, type ManagerOption } from '../operator.js';
import { ago, iso, isoOrNull, printFacts, printJson, printLine, printTable, warn } from '../print.js';

interface Common extends ManagerOption {
  json?: boolean;
}

interface CreateOptions extends Common {
  role: string;
  grant: string[];
  ttl: string;
  address: string[];
  out?: string;
  csr?: string;
}

export async function operatorCreate(name: string, options: CreateOptions): Promise<void> {
  checkName('operator', name);
  const { grant, ttl, address: addresses, csr } = options;
  const role = checkOperatorRole(options.role);
  const grants = checkGrants(role, grant);
  const ttlMs = BigInt(parseDuration(ttl));
  addresses.forEach(checkAddress);
  const key = csr === undefined ? generateNodeKey() : undefined;
  const csrPem = key === undefined ? readRequest(csr as string) : createCsr(key.privateKey);
  const path = options.out ?? `${name}.pem`;
  const out = openOutput(path, options);
  let issued: IssuedOperator;
  try {
    issued = await withManager(options, (manager) =>
      call(manager, Control, 'createOperator', { name, role, grants, ttlMs, csrPem }),
    );
  } catch (error) {
    out.discard();
    throw error;
  }
  const { certificatePem, rootPem, clusterId, operator } = issued;
  const managers = addresses.length > 0 ? addresses : issued.managers;
  out.write(identityText({ name, clusterId, managers, keyPem: key?.privatePem, certificatePem, rootPem }));
  if (managers.length === 0)
    warn(
      'the file names no manager: give --address HOST:PORT here, or --manager HOST:PORT with each command',
    );
  if (path === '-') return;
  if (options.json === true) return printJson({ ...operatorJson(operator as Operator), file: path });
  printLine(
    key === undefined
      ? `${path}: the certificate of operator ${name}, until ${iso(operator?.expiresMs ?? 0n)}; the private key is to be added to it`
      : `${path}: the identity of operator ${name}, until ${iso(operator?.expiresMs ?? 0n)}; who has it, is ${name}`,
  );
}

/** A key that stays on this machine; what is printed is for: operator create --csr */
export function operatorRequest({ out: path }: { out: string }): void {
  const { privateKey, privatePem } = generateNodeKey();
  openOutput(path, {}).write(privatePem);
  process.stdout.write(createCsr(privateKey));
}

export async function operatorLs(options: Common & { quiet?: boolean }): Promise<void> {
  const { operators } = await withManager(options, (manager) => call(manager, Control, 'listOperators', {}));
  if (options.json === true) return printJson(operators.map(operatorJson));
  if (options.quiet === true) return operators.forEach(({ id }) => printLine(id));
  const rows = operators.map((one) => [
    one.id,
    one.name,
    one.role,
    one.formerCa && one.status === 'valid' ? 'valid, to renew' : one.status,
    one.grants.join(',') || '-',
    ago(one.createdMs),
    ago(one.expiresMs),
  ]);
  printTable(['ID', 'NAME', 'ROLE', 'STATUS', 'GRANTS', 'CREATED', 'EXPIRES'], rows);
}

export async function operatorInspect(names: string[], options: Common): Promise<void> {
  const operators = await withManager(options, (manager) =>
    Promise.all(names.map((name) => call(manager, Control, 'getOperator', { name }))),
  );
  if (options.json === true) return printJson(operators.map(operatorJson));
  operators.forEach(print);
}

export async function operatorUpdate(
  name: string,
  options: Common & { role?: string; grantAdd: string[]; grantRm: string[]; ifVersion?: number },
): Promise<void> {
  const { role, grantAdd: grantsAdd, grantRm: grantsRemove } = options;
  if (role === undefined && grantsAdd.length + grantsRemove.length === 0) {
    throw new InroError('bad_input', 'nothing is to be changed', {
      remedy: 'write --role ROLE, --grant-add GLOB or --grant-rm GLOB',
    });
  }
  const request = { name, grantsAdd, grantsRemove, ...(role === undefined ? {} : { role }) };
  const operator = await withManager(options, async (manager) => {
    const seen = async (): Promise<number> => (await call(manager, Control, 'getOperator', { name })).version;
    const ifVersion = options.ifVersion ?? (role === undefined ? 0 : await seen());
    return call(manager, Control, 'updateOperator', { ...request, ifVersion });
  });
  if (options.json === true) printJson(operatorJson(operator));
  else print(operator);
}

export async function operatorRevoke(names: string[], options: Common): Promise<void> {
  await withManager(options, (manager) =>
    removeEach(names, options, async (name) => (await call(manager, Control, 'revokeOperator', { name })).id),
  );
}

export async function operatorRm(names: string[], options: Common): Promise<void> {
  await withManager(options, (manager) =>
    removeEach(names, options, async (name) => (await call(manager, Control, 'removeOperator', { name })).id),
  );
}

/** The new identity is on disk, in the place of the old one, before it is used. */
export async function operatorRenew(options: Common): Promise<void> {
  const path = identityPath(options);
  const { privateKey, privatePem: keyPem } = generateNodeKey();
  const csrPem = createCsr(privateKey);
  const { issued, former } = await withManager({ ...options, identity: path }, async (manager, identity) => ({
    issued: await call(manager, Control, 'renewOperator', { csrPem }),
    former: identity as OperatorIdentity,
  }));
  const { certificatePem, rootPem, clusterId, operator } = issued;
  const { managers } = former;
  const name = operator?.name ?? former.name;
  const text = identityText({ name, clusterId, managers, keyPem, certificatePem, rootPem });
  const { rootPem: trusted } = former;
  // Another root is trusted when the one before vouches for it: who trusts that verifies what was issued, too.
  if (
    rootPem.trim() !== trusted.trim() &&
    !isVouchedFor(readRoot(rootPem), certificatePem, trusted, systemClock.now())
  ) {
    throw new InroError('foreign_cluster', 'the manager names another root than the identity has', {
      remedy: 'ask an admin for a new identity: inro operator create',
    });
  }
  parseIdentity(text, path, systemClock.now());
  replaceFile(path, text, 0o600);
  if (options.json === true) printJson({ ...operatorJson(operator as Operator), file: path });
  else printLine(`${path}: renewed, until ${iso(operator?.expiresMs ?? 0n)}`);
}

function print(operator: Operator): void {
  const { id, name, role, status, grants, createdMs, expiresMs, serial } = operator;
  printFacts([
    ['ID', id],
    ['Name', name],
    ['Role', role],
    ['Status', status],
    ['Grants', grants.join(', ') || '-'],
    ['Created', `${iso(createdMs)} (${ago(createdMs)})`],
    ['Expires', `${iso(expiresMs)} (${ago(expiresMs)})`],
    ['Serial', serial],
    ...(operator.formerCa
      ? ([['CA', 'a former one: he should renew it (inro operator renew)']] as [string, string][])
      : []),
  ]);
}

function operatorJson(operator: Operator) {
  const { id, name, role, status, grants, createdMs, expiresMs, revokedMs, serial } = operator;
  return {
    id,
    name,
    role,
    status,
    grants,
    createdAt: iso(createdMs),
    version: operator.version,
    expiresAt: iso(expiresMs),
    revokedAt: isoOrNull(revokedMs),
    serial,
    formerCa: operator.formerCa,
  };
}

interface Output {
  write(text: string): void;
  discard(): void;
}

/** Opened before anything is asked for, so that nobody is made whose identity cannot be written. */
function openOutput(path: string, { json }: { json?: boolean }): Output {
  if (path === '-') {
    if (process.stdout.isTTY || json === true) {
      throw new InroError('bad_input', 'an identity is not printed to a terminal, nor into JSON', {
        remedy: 'name a file: --out FILE',
      });
    }
    return { write: (text) => void process.stdout.write(text), discard: () => undefined };
  }
  let descriptor: number;
  try {
    descriptor = openSync(path, 'wx', 0o600);
  } catch (error) {
    const isThere = (error as NodeJS.ErrnoException).code === 'EEXIST';
    const why = isThere ? 'is there already' : `cannot be written: ${(error as Error).message}`;
    throw new InroError('bad_input', `${path} ${why}`, {
      remedy: 'name another file: --out FILE',
      cause: error,
    });
  }
  return {
    write: (text) => {
      const bytes = Buffer.from(text);
      for (let at = 0; at < bytes.length;) at += writeSync(descriptor, bytes, at);
      fsyncSync(descriptor);
      closeSync(descriptor);
    },
    discard: () => {
      closeSync(descriptor);
      rmSync(path, { force: true });
    },
  };
}

function readRequest(path: string): string {
  let text: string;
  try {
    text = readFileSync(path === '-' ? 0 : path, 'utf8');
  } catch (error) {
    throw new InroError('bad_input', `the request ${path} cannot be read: ${(error as Error).message}`, {
      remedy: 'name a file with a certificate request: --csr FILE',
      cause: error,
    });
  }
  readCsr(text);
  return text;
}
