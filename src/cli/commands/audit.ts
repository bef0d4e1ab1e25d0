/** inro audit */
import { AuditChain } from '../../crypto/audit_chain.js';
import { InroError } from '../../model/error.js';
import { Control, type AuditPage } from '../../proto/gen/inro/v1/control_pb.js';
import type { AuditRecord } from '../../proto/gen/inro/v1/records_pb.js';
import { call } from '../../rpc/client.js';
import { withManager, type ManagerOption } from '../operator.js';
import { Patient } from '../patient.js';
import { iso, padded, printJson, printLine, printTable } from '../print.js';

interface AuditOptions extends ManagerOption {
  follow?: boolean;
  verify?: boolean;
  known?: string;
  json?: boolean;
}

const head = ['TIME', 'WHO', 'FROM', 'ACTION', 'OBJECT', 'OUTCOME'];
/** As wide as what usually stands there, so that lines that come one by one stand under each other. */
const widths = [24, 16, 21, 16, 26, 0];
const waitMs = 20_000;

export async function auditCommand({ follow, verify, known, json, ...options }: AuditOptions): Promise<void> {
  if (known !== undefined && verify !== true)
    throw new InroError('bad_input', '--known goes with --verify', { remedy: 'add --verify' });
  const patient = new Patient();
  const ask: Ask = (request) =>
    patient.ask(() =>
      withManager(options, (manager) =>
        call(manager, Control, 'listAudit', request, request.waitMs + 10_000),
      ),
    );
  if (verify === true) return verified(ask, known, json === true);
  if (json !== true && follow === true) printLine(padded(head, widths));
  const all: AuditRecord[] = [];
  for await (const { record } of lines(ask, follow === true)) {
    if (follow === true)
      printLine(json === true ? JSON.stringify(lineJson(record)) : padded(rowOf(record), widths));
    else all.push(record);
  }
  if (json === true) printJson(all.map(lineJson));
  else printTable(head, all.map(rowOf));
}

type Ask = (request: { after: bigint; waitMs: number }) => Promise<AuditPage>;

interface Line {
  record: AuditRecord;
  clusterId: string;
}

/** From the oldest on. @param follow does not end. */
async function* lines(ask: Ask, follow: boolean): AsyncGenerator<Line> {
  for (let after = 0n; ;) {
    const { records, clusterId, last } = await ask({ after, waitMs: follow ? waitMs : 0 });
    for (const record of records) yield { record, clusterId };
    const seen = records.at(-1)?.number ?? after;
    // What is missing at the end shows here, too.
    if (records.length === 0 && last > after && !follow)
      throw new InroError('store_corrupt', `the audit is not whole: line ${after + 1n} is missing`, {
        remedy: 'compare with a backup of the manager, and with its log',
      });
    after = seen;
    if (!follow && after >= last) return;
  }
}

async function verified(ask: Ask, known: string | undefined, json: boolean): Promise<void> {
  const wanted = known === undefined ? undefined : parseKnown(known);
  let chain: AuditChain | undefined;
  let [first, last, digest, isKnown] = [0, 0, '', wanted === undefined];
  for await (const { record, clusterId } of lines(ask, false)) {
    chain ??= new AuditChain(clusterId);
    const number = Number(record.number);
    digest = Buffer.from(chain.add({ ...record, number, atMs: Number(record.atMs) })).toString('hex');
    if (first === 0) first = number;
    last = number;
    if (wanted?.number !== number) continue;
    if (wanted.digest !== digest) throw isAnother(number);
    isKnown = true;
  }
  if (!isKnown && wanted !== undefined && wanted.number >= first) throw isAnother(wanted.number);
  if (!isKnown)
    throw new InroError(
      'not_found',
      `line ${wanted?.number ?? 0} is not kept any more: the oldest is ${first}`,
      {
        remedy: 'note the end more often: inro audit --verify',
      },
    );
  if (json) printJson({ first, last, digest });
  else if (last === 0) printLine('the audit is empty');
  else {
    printLine(`lines ${first} to ${last} are whole`);
    printLine(`note the end, to verify from there: --known ${last}:${digest}`);
  }
}

function parseKnown(text: string): { number: number; digest: string } {
  const [, number, digest] = /^(\d{1,15}):([0-9a-f]{64})$/.exec(text) ?? [];
  if (number === undefined || digest === undefined)
    throw new InroError('bad_input', `${JSON.stringify(text)} is not NUMBER:DIGEST`, {
      remedy: "copy it from what 'inro audit --verify' printed",
    });
  return { number: Number(number), digest };
}

function isAnother(number: number): InroError {
  return new InroError(
    'store_corrupt',
    `the audit is not the one that was noted: line ${number} is another, or gone`,
    {
      remedy:
        'somebody has written it anew, or a backup was restored: compare with a backup of the manager, and with its log',
    },
  );
}

function rowOf(record: AuditRecord): string[] {
  const { actor, address, action, object, outcome, reason } = record;
  const end = reason === '' ? outcome : `${outcome}: ${reason}`;
  return [iso(record.atMs), actor || '-', address || '-', action, object || '-', end];
}

function lineJson(record: AuditRecord) {
  return {
    number: Number(record.number),
    time: iso(record.atMs),
    actor: record.actor,
    actorId: record.actorId,
    role: record.role,
    serial: record.serial,
    address: record.address,
    action: record.action,
    object: record.object,
    outcome: record.outcome,
    reason: record.reason,
    previous: Buffer.from(record.previous).toString('hex'),
  };
}
