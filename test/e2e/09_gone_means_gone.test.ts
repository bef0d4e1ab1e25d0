/**
 * Gone means gone: when a revoke has returned, no read gives a byte of the value any more. Thousands of revocations, raced by
 * readers in other processes in every way that Linux has to read a file; and the same readers where they must find
 * something, so that this test is known to see it.
 */
import test, { type ExecutionContext } from 'ava';
import type { DriverName } from '../../src/agent/mount/drivers.js';
import type { Plaintext } from '../../src/crypto/plaintext.js';
import { Host } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { Daemon } from '../support/inro.js';
import { canMount, mounted } from '../support/mounted.js';
import { mappingWays, race, readingWays, type Outcome, type Race, type Way } from '../support/race.js';

const revocations = 1_500;
const batch = 25;
/** For what is found each time. */
const few = 2 * batch;
/** Two requests of the kernel, and the end of a page. */
const valueBytes = 150_001;

const mounting = canMount ? test.serial : test.serial.skip;
const isReading = (way: Way): boolean => (readingWays as readonly Way[]).includes(way);

interface OnDriver {
  ways: readonly Way[];
  revocations: number;
  mmap: boolean;
  /** Instead of a wipe, a withdrawal and the loss of the reference in turn. */
  revoke?: (value: Plaintext, tellReaders: () => Promise<void>) => void | Promise<void>;
}

/** A race on a mount of the test's own. */
async function raceOn(
  t: ExecutionContext,
  name: DriverName,
  { mmap, revoke, ...options }: OnDriver,
): Promise<Outcome[]> {
  t.timeout(300_000);
  const { driver, take, mountPoint, scratch } = await mounted(t, name);
  const values = new Map<number, Plaintext>();
  const generation = (number: number) => ({
    taskId: `t${number}`,
    serviceId: 's',
    serviceName: 'web',
    graceMs: 10_000,
  });
  const revokes: Race['revoke'][] = [
    (number) => t.true(values.get(number)?.wipe()),
    (number) => driver.withdraw(`t${number}`),
    (number) => driver.publish({ ...generation(number), number: 2, files: [] }),
  ];
  const outcomes = await race({
    ...options,
    directory: `${mountPoint}/.task`,
    scratch,
    batch,
    spawn: (command) => new Daemon(command),
    show(number) {
      const value = take(valueBytes);
      value.expose().fill((number % 255) + 1);
      values.set(number, value);
      const file = { target: 'key', source: 'key', uid: 0, gid: 0, mode: 0o444, modifiedMs: 0, mmap, value };
      driver.publish({ ...generation(number), number: 1, files: [file] });
    },
    revoke: (number, tellReaders) =>
      revoke === undefined
        ? revokes[number % revokes.length]?.(number, tellReaders)
        : revoke(values.get(number) as Plaintext, tellReaders),
    clear(number) {
      driver.withdraw(`t${number}`);
      values.get(number)?.wipe();
    },
  });
  tell(t, outcomes);
  return outcomes;
}

function tell(t: ExecutionContext, outcomes: readonly Outcome[]): void {
  for (const { way, reads, files, begunAfter, late, zeros, refusals } of outcomes) {
    const after = [`late ${late}`, `zeros ${zeros}`, ...Object.entries(refusals).map((one) => one.join(' '))];
    t.log(`${way}: ${reads} reads of ${files} files; ${begunAfter} begun after: ${after.join(', ')}`);
  }
}

mounting(`${revocations} revocations of values in locked memory alone: no late read`, async (t) => {
  const ways = [...readingWays, ...mappingWays];
  for (const outcome of await raceOn(t, 'kernel', { ways, revocations, mmap: false })) {
    const { way, files, late, begunAfter, zeros } = outcome;
    t.is(late, 0, way);
    t.true(begunAfter >= revocations, way);
    t.is(zeros, 0, `${way}: refused, not answered with nothing`);
    t.is(files, isReading(way) ? revocations : 0, `${way}: what it could read before`);
  }
});

mounting(`${revocations} revocations of values that may be mapped: no late read`, async (t) => {
  const ways = [...readingWays, ...mappingWays, 'mlock'] as const;
  for (const outcome of await raceOn(t, 'kernel', { ways, revocations, mmap: true })) {
    const { way, files, late, begunAfter } = outcome;
    t.is(late, 0, way);
    t.true(begunAfter >= revocations, way);
    t.is(files, revocations, `${way}: it could read before`);
  }
});

// Zeroed before it leaves the page cache: whoever holds the page holds zeros. (A new mapping of the file makes the kernel drop
// the pages that were there before as they are: docs/kernel.md.)
mounting('what a pipe holds since before the revoke is zeros after it', async (t) => {
  const ways = [...readingWays, 'splice', 'sendfile', 'filled pipe'] as const;
  const pipes = 12 * batch;
  for (const outcome of await raceOn(t, 'kernel', { ways, revocations: pipes, mmap: true })) {
    const { way, files, late, zeros } = outcome;
    t.is(late, 0, way);
    t.is(files, pipes, `${way}: it could read before`);
    if (way === 'filled pipe') t.true(zeros >= pipes, way);
  }
});

mounting('the readers do see late reads: told too early that it is revoked, in every way', async (t) => {
  const told = (_: Plaintext, tellReaders: () => Promise<void>) => tellReaders();
  const all = [...readingWays, ...mappingWays, 'mlock', 'filled pipe'] as const;
  const strict = await raceOn(t, 'kernel', {
    ways: readingWays,
    revocations: few,
    mmap: false,
    revoke: told,
  });
  const mapped = await raceOn(t, 'kernel', { ways: all, revocations: few, mmap: true, revoke: told });
  for (const { way, late, begunAfter } of [...strict, ...mapped]) {
    t.true(begunAfter >= few, way);
    t.is(late, begunAfter, way);
  }
});

mounting('fuse-native cannot promise it: mappings and pipes keep the value, read(2) does not', async (t) => {
  const revoke = (value: Plaintext) => void value.wipe();
  for (const ways of [['MAP_PRIVATE'], ['splice', 'filled pipe']] as const) {
    const options = {
      ways: ['pread', 'pread of all', ...ways],
      revocations: few,
      mmap: true,
      revoke,
    } as const;
    for (const { way, late } of await raceOn(t, 'fuse-native', options)) {
      if (isReading(way)) t.is(late, 0, way);
      else t.true(late > 0, way);
    }
  }
});

labScenario(
  'when a command has returned, no node’s readers have it: removed, and its service removed',
  async (t) => {
    const host = await Host.of(t);
    await host.startCluster();
    await host.ask(['secret', 'create', 'key', '-'], { stdin: 'k'.repeat(valueBytes) });
    const services = 8;
    const outcomes = await race({
      ways: [...readingWays, 'MAP_PRIVATE', 'splice'],
      directory: '/run/inro/secrets',
      scratch: host.folder,
      revocations: services,
      batch: services,
      spawn: (command) => host.spawn(command),
      show: async (number) => {
        const secret = `source=key,target=key${number % 2 === 0 ? ',mmap' : ''}`;
        await host.ask(['service', 'create', '--name', `t${number}`, '--secret', secret]);
      },
      revoke: async (number) => {
        const remove =
          number % 4 < 2
            ? ['service', 'rm', `t${number}`]
            : ['service', 'update', '--secret-rm', 'key', `t${number}`];
        await host.ask(remove);
      },
      clear: () => undefined,
    });
    tell(t, outcomes);
    for (const { way, files, late, begunAfter } of outcomes) {
      t.is(late, 0, way);
      t.true(begunAfter >= services, way);
      t.is(files, isReading(way) ? services : services / 2, way);
    }
  },
);
