/** inro ca inspect|update|rotate */
import { durationText, parseDuration } from '../../model/duration.js';
import { InroError } from '../../model/error.js';
import { printable } from '../../model/name.js';
import {
  Control,
  type Ca,
  type CaNode,
  type CaRotation,
  type ExternalCa,
} from '../../proto/gen/inro/v1/control_pb.js';
import { call } from '../../rpc/client.js';
import { systemClock } from '../../system/clock.js';
import { readFileIfThere } from '../../system/files.js';
import { withManager, type ManagerOption } from '../operator.js';
import { ago, iso, printFacts, printJson, printLine, printTable, warn } from '../print.js';

const lookMs = 500;

interface Common extends ManagerOption {
  json?: boolean;
}

export async function caInspect({ json, ...options }: Common): Promise<void> {
  const ca = await withManager(options, (manager) => call(manager, Control, 'getCa', {}));
  if (json === true) return printJson(caJson(ca));
  const { rotation } = ca;
  printFacts([
    ['Cluster', ca.clusterId],
    ['Root', `SHA-256 ${ca.rootFingerprint}`],
    ['Root expires', `${iso(ca.rootExpiresMs)} (${ago(ca.rootExpiresMs)})`],
    ...ca.intermediates.map(({ subject, expiresMs }): [string, string] => [
      'Below it',
      `${printable(subject, 200)}, expires ${iso(expiresMs)} (${ago(expiresMs)})`,
    ]),
    ...(ca.external.length > 0
      ? ca.external.map((one): [string, string] => ['Signed by', externalText(one)])
      : ([['Cert expiry', `${durationText(Number(ca.certificateLifetimeMs))} from their issue`]] as [
          string,
          string,
        ][])),
    ...(rotation === undefined ? [] : rotationFacts(rotation)),
    ...ca.formerRoots.map(({ fingerprint, retiredMs }): [string, string] => [
      'Former root',
      `SHA-256 ${fingerprint}, until ${iso(retiredMs)}`,
    ]),
    ...(ca.operatorsToRenew.length === 0
      ? []
      : ([
          [
            'Operators',
            `${ca.operatorsToRenew.join(', ')}: have a certificate of a former CA (inro operator renew)`,
          ],
        ] as [string, string][])),
  ]);
  if (rotation !== undefined && rotation.left.length > 0) printNodes('Not renewed yet:', rotation.left);
  if (ca.mustEnrol.length > 0)
    printNodes('Their hosts must enrol again (inro agent join --again):', ca.mustEnrol);
}

export async function caUpdate({
  certExpiry,
  rotationDeadline,
  ifVersion,
  json,
  ...options
}: Common & { certExpiry?: string; rotationDeadline?: string; ifVersion?: number }): Promise<void> {
  if (certExpiry === undefined && rotationDeadline === undefined) {
    throw new InroError('bad_input', 'nothing is to be changed', {
      remedy: 'write --cert-expiry 90d, or --rotation-deadline 1h',
    });
  }
  const request = {
    ...(certExpiry === undefined ? {} : { certificateLifetimeMs: BigInt(parseDuration(certExpiry)) }),
    ...(rotationDeadline === undefined
      ? {}
      : { rotationDeadlineMs: BigInt(rotationDeadline === 'now' ? 0 : parseDuration(rotationDeadline)) }),
  };
  const ca = await withManager(options, async (manager) => {
    const seen = ifVersion ?? (await call(manager, Control, 'getCa', {})).version;
    return call(manager, Control, 'updateCa', { ...request, ifVersion: seen });
  });
  if (json === true) return printJson(caJson(ca));
  const text = durationText(Number(ca.certificateLifetimeMs));
  if (certExpiry !== undefined)
    printLine(`certificates issued from now on last ${text}; those that are out stay as they are`);
  if (rotationDeadline === undefined) return;
  if (ca.rotation !== undefined) printLine(`the rotation of the CA ends at ${iso(ca.rotation.deadlineMs)}`);
  else printEnd(ca);
}

interface RotateOptions extends Common {
  caCert?: string;
  caKey?: string;
  deadline: string;
  wait?: boolean;
}

export async function caRotate({
  caCert,
  caKey,
  deadline,
  wait,
  json,
  ...options
}: RotateOptions): Promise<void> {
  const deadlineMs = BigInt(parseDuration(deadline));
  const given = readGiven(caCert, caKey);
  const ca = await withManager(options, (manager) =>
    call(manager, Control, 'rotateCa', { ...given, deadlineMs }),
  );
  if (wait !== true) {
    if (json === true) printJson(caJson(ca));
    else printBegun(ca);
    return;
  }
  if (json !== true) printBegun(ca);
  const end = await untilOver(ca, options, json !== true);
  if (json === true) printJson(caJson(end));
  else printEnd(end);
  if (end.mustEnrol.length > 0) {
    throw new InroError('pending', `the CA was rotated without ${count(end.mustEnrol.length)}`, {
      remedy:
        'their hosts keep their node ids if they join again: stop the agent there, then inro agent join --again --token - --manager HOST:PORT',
    });
  }
}

/** Each look is a connection of its own: the manager may be restarted meanwhile, and so may what is in between. */
async function untilOver(begun: Ca, options: ManagerOption, tells: boolean): Promise<Ca> {
  let last = -1;
  let ca = begun;
  for (let failures = 0; ca.rotation !== undefined;) {
    const { nodes, renewed } = ca.rotation;
    if (tells && renewed !== last) printLine(`${renewed} of ${count(nodes)} renewed`);
    last = renewed;
    await systemClock.sleep(lookMs);
    try {
      ca = await withManager(options, (manager) => call(manager, Control, 'getCa', {}));
      failures = 0;
    } catch (error) {
      const isTemporary = error instanceof InroError && error.kind === 'temporary';
      if (!isTemporary || ++failures > 60) throw error;
      if (failures === 1) warn('the manager does not answer; the rotation goes on when it does');
    }
  }
  return ca;
}

function printBegun({ rootFingerprint, rotation }: Ca): void {
  if (rotation === undefined) return;
  const { nodes, renewed, deadlineMs, endingTokens } = rotation;
  printLine(`new root: SHA-256 ${rootFingerprint}`);
  printLine(
    `${count(nodes - renewed)} to be renewed; who is not until ${iso(deadlineMs)} must enrol again ('inro ca inspect' shows them)`,
  );
  const ending = endingTokens === 0 ? '' : `; ${endingTokens} made to measure end with the rotation`;
  printLine(`join tokens name the new root: inro token show worker${ending}`);
}

function printEnd({ mustEnrol }: Ca): void {
  printLine('the CA was rotated: certificates of the one before are not accepted any more');
  if (mustEnrol.length > 0) printNodes('Their hosts must enrol again (inro agent join --again):', mustEnrol);
}

function printNodes(words: string, nodes: readonly CaNode[]): void {
  printLine(`\n${words}`);
  const rows = nodes.map(({ id, hostname, status, certificateExpiresMs }) => [
    id,
    hostname || '-',
    status,
    ago(certificateExpiresMs),
  ]);
  printTable(['ID', 'HOSTNAME', 'STATUS', 'EXPIRES'], rows);
}

function externalText({ url, lastSignedMs, lastFailedMs, lastError }: ExternalCa): string {
  if (lastError !== '') return `${url}, failed ${ago(lastFailedMs)}: ${printable(lastError, 500)}`;
  return lastSignedMs === 0n ? `${url}, not asked yet` : `${url}, signed ${ago(lastSignedMs)}`;
}

function rotationFacts({
  startedMs,
  deadlineMs,
  nodes,
  renewed,
  formerRootFingerprint,
}: CaRotation): [string, string][] {
  return [
    [
      'Rotation',
      `${renewed} of ${count(nodes)} renewed since ${iso(startedMs)}, until ${iso(deadlineMs)} at the latest`,
    ],
    ['Root before', `SHA-256 ${formerRootFingerprint}, still trusted`],
  ];
}

function count(nodes: number): string {
  return nodes === 1 ? '1 node' : `${nodes} nodes`;
}

/** @throws bad_input, state_unusable. */
function readGiven(
  caCert: string | undefined,
  caKey: string | undefined,
): { certPem: string; keyPem: string } {
  if (caCert === undefined && caKey === undefined) return { certPem: '', keyPem: '' };
  if (caCert === undefined || caKey === undefined) {
    throw new InroError('bad_input', '--ca-cert and --ca-key belong together', {
      remedy: 'give both, or none: a root is made then',
    });
  }
  const [certPem, keyPem] = [caCert, caKey].map((path) => {
    const text = readFileIfThere(path);
    if (text !== undefined) return text;
    throw new InroError('bad_input', `the file ${path} is not there`, {
      remedy: 'give a PEM file that is there with --ca-cert and with --ca-key',
    });
  }) as [string, string];
  return { certPem, keyPem };
}

function caJson(ca: Ca) {
  const { rotation } = ca;
  return {
    clusterId: ca.clusterId,
    version: ca.version,
    rootFingerprint: ca.rootFingerprint,
    rootExpiresAt: iso(ca.rootExpiresMs),
    rootPem: ca.rootPem,
    certExpiryMs: ca.external.length > 0 ? null : Number(ca.certificateLifetimeMs),
    external: ca.external.map(({ url, lastSignedMs, lastFailedMs, lastError }) => ({
      url,
      lastSignedAt: lastSignedMs === 0n ? null : iso(lastSignedMs),
      lastFailedAt: lastFailedMs === 0n ? null : iso(lastFailedMs),
      lastError: lastError === '' ? null : lastError,
    })),
    intermediates: ca.intermediates.map(({ subject, expiresMs }) => ({ subject, expiresAt: iso(expiresMs) })),
    rotation:
      rotation === undefined
        ? null
        : {
            startedAt: iso(rotation.startedMs),
            deadlineAt: iso(rotation.deadlineMs),
            formerRootFingerprint: rotation.formerRootFingerprint,
            nodes: rotation.nodes,
            renewed: rotation.renewed,
            left: rotation.left.map(nodeJson),
          },
    formerRoots: ca.formerRoots.map(({ fingerprint, retiredMs }) => ({
      fingerprint,
      retiredAt: iso(retiredMs),
    })),
    mustEnrol: ca.mustEnrol.map(nodeJson),
    operatorsToRenew: ca.operatorsToRenew,
  };
}

function nodeJson({ id, hostname, status, certificateExpiresMs }: CaNode) {
  return { id, hostname, status, certificateExpiresAt: iso(certificateExpiresMs) };
}
