/** A secret as it is, beside how it is to be. */
import { parseValueFormat } from '../../crypto/generate.js';
import { parseDuration } from '../../model/duration.js';
import { InroError } from '../../model/error.js';
import { newId } from '../../model/id.js';
import { parseLease } from '../../model/lease.js';
import { checkLabels, quoted } from '../../model/name.js';
import type { Secret } from '../../proto/gen/inro/v1/control_pb.js';
import type { Connection } from '../../rpc/client.js';
import { systemRandom } from '../../system/clock.js';
import type { ValueSource } from '../seal.js';
import type { WantedSecret } from './file.js';
import { labelChange } from './labels.js';
import type { Step } from './step.js';

/** @throws bad_input, not_found */
export function secretStep(wanted: WantedSecret, known: Secret | undefined): Step {
  const { name, labels } = wanted;
  const step = { kind: 'secret', name } as const;
  if (wanted.external === true) return { ...step, mark: '=', words: `version ${external(name, known)}` };
  checkLabels(labels ?? {});
  const lasts = lastsOf(wanted);
  const { source, from } = sourceOf(wanted);
  const seal = async (manager: Connection, secretId: string, number: number) =>
    (await import('../seal.js')).sealFrom(source, manager, { secretId, version: number });
  if (known === undefined) {
    const id = newId(systemRandom);
    return {
      ...step,
      mark: '+',
      words: from,
      change: async (manager) => ({
        case: 'createSecret',
        value: { id, name, labels: labels ?? {}, ...lasts, ...(await seal(manager, id, 1)) },
      }),
    };
  }
  const { id, latestVersion } = known;
  const version = newVersion(wanted, latestVersion);
  const { add, remove, words } = labelChange(known.labels, labels);
  const isNewer = version !== undefined;
  const parts = [...(isNewer ? [`version ${latestVersion} -> ${version}, ${from}`] : []), ...words];
  if (parts.length === 0) return { ...step, mark: '=', words: `version ${latestVersion}` };
  return {
    ...step,
    mark: '~',
    words: parts.join('; '),
    change: async (manager) => ({
      case: 'updateSecret',
      value: {
        id,
        labelsAdd: add,
        labelsRemove: remove,
        labelsSeen: { labels: known.labels },
        ifVersion: known.version,
        ...(isNewer ? { version, ...lasts, ...(await seal(manager, id, version)) } : {}),
      },
    }),
  };
}

/** Its version. @throws not_found */
function external(name: string, known: Secret | undefined): number {
  if (known !== undefined) return known.version;
  throw new InroError('not_found', `no secret ${quoted(name)}: the file says that there is one`, {
    remedy: `create it first: inro secret create ${name} -`,
  });
}

/** The number that its value gets; undefined: it gets none. @throws bad_input for one that is not the next. */
function newVersion({ name, version }: WantedSecret, latest: number): number | undefined {
  if (version === undefined || version <= latest) return undefined;
  if (version === latest + 1) return version;
  throw new InroError(
    'bad_input',
    `secret ${quoted(name)} has version ${latest}: the next one is not ${version}`,
    { remedy: `write version: ${latest + 1}` },
  );
}

/** @throws bad_input */
function lastsOf({ name, lease, expires, withdraw = false }: WantedSecret) {
  if (expires === undefined && withdraw)
    throw new InroError('bad_input', `secret ${quoted(name)} is to be withdrawn, and has no end`, {
      remedy: 'write expires: 30d, too',
    });
  return {
    leaseMs: lease === undefined ? 0n : BigInt(parseLease(lease)),
    ...(expires === undefined ? {} : { expiration: { ttlMs: BigInt(parseDuration(expires)), withdraw } }),
  };
}

/** @throws bad_input unless it comes from one place. */
function sourceOf({ name, file, fd, generate, value }: WantedSecret): { source: ValueSource; from: string } {
  if (value !== undefined) return { source: { read: value.read }, from: `from ${value.from}` };
  const given = [file, fd, generate].filter((one) => one !== undefined);
  if (given.length !== 1)
    throw new InroError('bad_input', `secret ${quoted(name)} has ${given.length} sources of its value`, {
      remedy: 'write one of file: PATH, fd: NUMBER, generate: FORMAT',
    });
  if (generate !== undefined)
    return { source: { generate: parseValueFormat(generate) }, from: `generated: ${generate}` };
  if (fd !== undefined) return { source: { file: `/dev/fd/${fd}` }, from: `from descriptor ${fd}` };
  return { source: { file: file ?? '' }, from: `from ${file ?? ''}` };
}
