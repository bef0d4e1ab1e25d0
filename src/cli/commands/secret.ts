/** inro secret create|update|ls|inspect|rm; `revoke` is in a file of its own. */
import { parseValueFormat } from '../../crypto/generate.js';
import { parseDuration } from '../../model/duration.js';
import { InroError } from '../../model/error.js';
import { newId } from '../../model/id.js';
import { leaseText, parseLease } from '../../model/lease.js';
import { checkLabels, checkName, type Labels } from '../../model/name.js';
import {
  Control,
  type Secret,
  type SecretReads,
  type VersionHolder,
} from '../../proto/gen/inro/v1/control_pb.js';
import { call, type Connection } from '../../rpc/client.js';
import { systemRandom } from '../../system/clock.js';
import { removeEach, settle, withManager, type ManagerOption } from '../operator.js';
import {
  ago,
  iso,
  isoOrNull,
  labelText,
  printFacts,
  printJson,
  printLine,
  printTable,
  warn,
} from '../print.js';
import type { ValueSource } from '../seal.js';
import { printReads, readsJson } from '../secret_reads.js';

interface Common extends ManagerOption {
  json?: boolean;
  detach?: boolean;
}

export async function secretCreate(
  name: string,
  file: string | undefined,
  options: Common & Expires & { label: Labels; generate?: string },
): Promise<void> {
  checkName('secret', name);
  checkLabels(options.label);
  const source = sourceOf(file, options.generate);
  const leaseMs = leaseOf(options);
  await withManager(options, async (manager) => {
    const id = newId(systemRandom);
    const { seal } = await sealing(manager);
    const sealed = await seal(source, { secretId: id, version: 1 });
    const { version } = await call(manager, Control, 'createSecret', {
      id,
      name,
      labels: options.label,
      leaseMs,
      ...expirationOf(options),
      ...sealed,
    });
    if (options.json === true) printJson({ id, name, version });
    else printLine(id);
  });
}

export async function secretUpdate(
  name: string,
  file: string | undefined,
  options: Common &
    Expires & {
      labelAdd: Labels;
      labelRm: string[];
      generate?: string;
      stage: string[];
      nodes?: number;
      promote?: boolean;
      unstage?: boolean;
      ifVersion?: number;
    },
): Promise<void> {
  if (options.promote === true || options.unstage === true) return endStage(name, file, options);
  const source = sourceOf(file, options.generate);
  const { labelAdd: labelsAdd, labelRm: labelsRemove } = options;
  const isGiven = file !== undefined || options.generate !== undefined;
  const labelsOnly = !isGiven && (Object.keys(labelsAdd).length > 0 || labelsRemove.length > 0);
  const leaseMs = leaseOf(options);
  if (labelsOnly && leaseMs !== 0n)
    throw new InroError('bad_input', 'a lease is of a value: it comes with the next one', {
      remedy: `inro secret update --lease ${options.lease ?? ''} ${name} -`,
    });
  await withManager(options, async (manager) => {
    const [{ id, latestVersion, labels }, sealer] = await Promise.all([
      call(manager, Control, 'getSecret', { name }),
      labelsOnly ? undefined : sealing(manager),
    ]);
    const version = latestVersion + 1;
    const sealed = sealer === undefined ? {} : await sealer.seal(source, { secretId: id, version });
    const changed = await call(manager, Control, 'updateSecret', {
      id,
      version,
      ...sealed,
      labelsAdd,
      labelsRemove,
      labelsSeen: { labels },
      ...(labelsOnly ? {} : expirationOf(options)),
      leaseMs,
      stageServices: options.stage,
      stageNodes: options.nodes ?? 0,
      ifVersion: options.ifVersion ?? 0,
    });
    await settle(manager, changed, options);
    if (options.json === true) printJson({ id, name, version: changed.version });
    else printLine(id);
  });
}

/** What sealing needs is loaded while the manager is asked for its key: otherwise the one would wait for the other. */
async function sealing(manager: Connection) {
  const [cluster, { sealFrom }] = await Promise.all([
    call(manager, Control, 'getCluster', {}),
    import('../seal.js'),
  ]);
  return {
    seal: (source: ValueSource, of: { secretId: string; version: number }) =>
      sealFrom(source, manager, of, cluster),
  };
}

/** A staged version becomes the current one, or is taken back. */
async function endStage(
  name: string,
  file: string | undefined,
  options: Common & {
    generate?: string;
    stage: string[];
    nodes?: number;
    promote?: boolean;
    unstage?: boolean;
    ifVersion?: number;
  },
): Promise<void> {
  const { promote = false, unstage = false } = options;
  const isMore = file !== undefined || options.generate !== undefined || options.stage.length > 0;
  if (isMore || (promote && unstage))
    throw new InroError('bad_input', 'a staged version is promoted or taken back by itself', {
      remedy: `first inro secret update ${name} --${unstage ? 'unstage' : 'promote'}, then what else there is`,
    });
  await withManager(options, async (manager) => {
    const { version, stagedVersion } = await call(manager, Control, 'getSecret', { name });
    const seen = { ifVersion: options.ifVersion ?? version, ifStaged: stagedVersion };
    const changed = await call(manager, Control, 'endStage', { name, promote, ...seen });
    await settle(manager, changed, options);
    if (options.json === true) printJson({ id: changed.id, name, version: changed.version });
    else printLine(changed.id);
  });
}

interface Expires {
  lease?: string;
  expires?: string;
  withdraw?: boolean;
}

/** @returns ms; 0 for what is usual. @throws bad_input */
function leaseOf({ lease }: { lease?: string }): bigint {
  return lease === undefined ? 0n : BigInt(parseLease(lease));
}

/** @throws bad_input */
function expirationOf({ expires, withdraw = false }: Expires) {
  if (expires !== undefined) return { expiration: { ttlMs: BigInt(parseDuration(expires)), withdraw } };
  if (!withdraw) return {};
  throw new InroError('bad_input', '--withdraw needs the day on which it is to be', {
    remedy: 'give --expires, too: --expires 30d --withdraw',
  });
}

/** @throws bad_input when both are given. */
function sourceOf(file: string | undefined, format: string | undefined): ValueSource {
  if (format === undefined) return { file: file ?? '-' };
  if (file === undefined) return { generate: parseValueFormat(format) };
  throw new InroError('bad_input', 'a value is either read or drawn', {
    remedy: 'give FILE, or --generate FORMAT',
  });
}

export async function secretLs(options: Common & { filter: string[]; quiet?: boolean }): Promise<void> {
  const { secrets } = await withManager(options, (manager) =>
    call(manager, Control, 'listSecrets', { filters: options.filter }),
  );
  if (options.json === true) return printJson(secrets.map(secretJson));
  if (options.quiet === true) return secrets.forEach(({ id }) => printLine(id));
  const rows = secrets.map((s) => [
    s.id,
    s.name,
    isRevoked(s) ? `${s.version} (revoked)` : String(s.version),
    labelText(s.labels),
    ago(s.createdMs),
    ago(s.updatedMs),
  ]);
  printTable(['ID', 'NAME', 'VERSION', 'LABELS', 'CREATED', 'UPDATED'], rows);
}

export async function secretInspect(names: string[], options: Common): Promise<void> {
  const found = await withManager(options, (manager) =>
    Promise.all(
      names.map(async (name) => {
        const secret = await call(manager, Control, 'getSecret', { name });
        return { secret, reads: await call(manager, Control, 'getSecretReads', { name: secret.id }) };
      }),
    ),
  );
  if (options.json === true) return printJson(found.map(inspectedJson));
  for (const { secret, reads } of found) {
    printFacts([
      ['ID', secret.id],
      ['Name', secret.name],
      ['Labels', labelText(secret.labels)],
      [
        'Version',
        `${secret.version} (${isRevoked(secret) ? 'revoked: no value to serve' : `${secret.sizeBytes} bytes`})`,
      ],
      ['Created', `${iso(secret.createdMs)} (${ago(secret.createdMs)})`],
      ['Updated', `${iso(secret.updatedMs)} (${ago(secret.updatedMs)})`],
      ['Used by', secret.serviceNames.join(', ') || '-'],
      ...stagedFact(secret),
    ]);
    const rows = secret.versions.map((v) => [
      String(v.version),
      `${v.sizeBytes}`,
      ago(v.createdMs),
      String(v.nodes),
      v.expiresMs === 0n ? '-' : `${ago(v.expiresMs)}${v.withdraw ? ', withdrawn then' : ''}`,
      leaseText(Number(v.leaseMs)),
      v.pinnedBy.join(', ') || '-',
      v.revokedMs === 0n ? '-' : `${ago(v.revokedMs)}, by ${v.revokedBy}`,
    ]);
    printTable(['VERSION', 'BYTES', 'CREATED', 'NODES', 'EXPIRES', 'LEASE', 'PINNED BY', 'REVOKED'], rows);
    printHolders(secret);
    printReads(reads, secret.version);
  }
}

export async function secretRm(names: string[], options: Common): Promise<void> {
  await withManager(options, (manager) =>
    removeEach(names, options, async (name) => {
      // Why it cannot be removed is the removal's to say.
      const secret = await call(manager, Control, 'getSecret', { name }).catch(() => undefined);
      const { id } = await call(manager, Control, 'removeSecret', { name });
      if (secret !== undefined) warnOfHolders(secret);
      return id;
    }),
  );
}

/** From now on nothing else says who they are. */
function warnOfHolders({ name, versions }: Secret): void {
  for (const { version, holders } of versions)
    for (const { nodeId, nodeHostname, untilMs } of holders) {
      const until = untilMs === 0n ? 'as long as its agent runs' : `until ${iso(untilMs)}`;
      const node = nodeHostname || nodeId;
      warn(
        `secret ${name} is removed, but ${node} may serve version ${version} of it ${until}, if it is not heard`,
      );
    }
}

function printHolders({ versions }: Secret): void {
  const rows = versions.flatMap(({ version, holders }) =>
    holders.map(({ nodeId, nodeHostname, sinceMs, untilMs }) => [
      nodeHostname || nodeId,
      String(version),
      ago(sinceMs),
      untilMs === 0n ? 'never' : `${iso(untilMs)} (${ago(untilMs)})`,
    ]),
  );
  if (rows.length > 0) printTable(['NODE', 'HOLDS', 'SINCE', 'UNTIL, IF IT IS NOT HEARD'], rows);
}

function stagedFact({ stagedVersion, stagedServices, stagedNodes }: Secret): [string, string][] {
  if (stagedVersion === 0) return [];
  const where = [
    ...stagedServices.map((name) => `service ${name}`),
    ...stagedNodes.map((name) => `node ${name}`),
  ];
  return [['Staged', `version ${stagedVersion}: ${where.join(', ')}`]];
}

/** The current version is: there is nothing to serve until the next one. */
function isRevoked({ version, versions }: Secret): boolean {
  return versions.some((one) => one.version === version && one.revokedMs > 0n);
}

function inspectedJson({ secret, reads }: { secret: Secret; reads: SecretReads }) {
  const { versions, ...rest } = secretJson(secret);
  return {
    ...rest,
    versions: secret.versions.map((one, n) => ({
      ...versions[n],
      holders: one.holders.map(holderJson),
      ...readsJson(reads, one),
    })),
  };
}

function holderJson({ nodeId, nodeHostname, sinceMs, untilMs }: VersionHolder) {
  return { nodeId, node: nodeHostname, since: isoOrNull(sinceMs), until: isoOrNull(untilMs) };
}

function secretJson(secret: Secret) {
  return {
    id: secret.id,
    name: secret.name,
    labels: secret.labels,
    version: secret.version,
    revoked: isRevoked(secret),
    sizeBytes: secret.sizeBytes,
    createdAt: iso(secret.createdMs),
    updatedAt: iso(secret.updatedMs),
    services: secret.serviceNames,
    staged:
      secret.stagedVersion === 0
        ? null
        : { version: secret.stagedVersion, services: secret.stagedServices, nodes: secret.stagedNodes },
    versions: secret.versions.map((one) => ({
      version: one.version,
      sizeBytes: one.sizeBytes,
      createdAt: iso(one.createdMs),
      ciphertextSha256: Buffer.from(one.ciphertextDigest).toString('hex'),
      nodes: one.nodes,
      revokedAt: isoOrNull(one.revokedMs),
      revokedBy: one.revokedBy,
      expiresAt: isoOrNull(one.expiresMs),
      withdraw: one.withdraw,
      pinnedBy: one.pinnedBy,
      leaseSeconds: one.leaseMs < 0n ? null : Number(one.leaseMs) / 1000,
    })),
  };
}
