import test, { type ExecutionContext } from 'ava';
import { pino } from 'pino';
import { agentLimits } from '../../src/agent/limits.js';
import { Session } from '../../src/agent/session.js';
import type { AgentChannel } from '../../src/agent/channel.js';
import { InroError } from '../../src/model/error.js';
import { FakeClock, settle } from '../support/fake_clock.js';
import { fakeStream } from '../support/fake_channel.js';

interface Attempt {
  manager: string;
  atMs: number;
  welcome(): Promise<void>;
  /** The stream ends: with an error, or because the manager ended it. */
  end(error?: Error): Promise<void>;
  channel: AgentChannel;
}

/** @param drawn 0 to 1: where in [0, back-off) the delays lie. */
function sessionOf(t: ExecutionContext, { managers = ['m1:1'], drawn = 1 } = {}) {
  const clock = new FakeClock();
  const attempts: Attempt[] = [];
  const logged: { level: number; msg: string; remedy?: string }[] = [];
  const log = pino(
    { level: 'debug' },
    { write: (line: string) => void logged.push(JSON.parse(line) as (typeof logged)[0]) },
  );
  const known = [...managers];
  let expelled = 0;
  const obstacle: { why: InroError | undefined } = { why: undefined };
  const other = { is: false };
  const opened: string[] = [];
  const session = new Session({
    managers: () => known,
    open: (manager) => {
      opened.push(manager);
      return fakeStream().agent;
    },
    attach: (channel, onWelcome) =>
      new Promise<void>((resolve, reject) => {
        channel.closed.addEventListener('abort', () => resolve());
        attempts.push({
          manager: opened.at(-1) as string,
          atMs: clock.boottimeMs(),
          channel,
          welcome: async () => {
            onWelcome();
            await settle();
          },
          end: async (error) => {
            if (error === undefined) resolve();
            else reject(error);
            await settle();
          },
        });
      }),
    obstacle: () => obstacle.why,
    onFailed: () => other.is,
    onExpelled: () => (expelled += 1),
    clock,
    random: () => Buffer.alloc(4, Math.round(drawn * 255)),
    log,
  });
  const stop = new AbortController();
  const running = session.run(stop.signal);
  t.teardown(() => stop.abort());
  return {
    clock,
    attempts,
    logged,
    known,
    session,
    stop,
    running,
    last: () => attempts.at(-1) as Attempt,
    expelled: () => expelled,
    obstacle,
    other,
  };
}

const lost = (message = 'does not answer'): InroError =>
  new InroError('unreachable', message, { remedy: 'look at it' });

test('it says how it stands: connecting, connected, waiting with the reason, connected again', async (t) => {
  const s = sessionOf(t);
  await settle();
  t.like(s.session.status, { state: 'connecting', manager: 'm1:1', lastError: undefined });
  await s.last().welcome();
  t.like(s.session.status, { state: 'connected', manager: 'm1:1', sinceMs: s.clock.now() });
  await s.last().end(lost());
  t.is(s.session.status.state, 'waiting');
  t.is(s.session.status.lastError?.message, 'does not answer');
  await s.clock.advance(agentLimits.backoffMaxMs);
  t.is(s.session.status.state, 'waiting', 'while it tries, the reason is still shown');
  await s.last().welcome();
  t.like(s.session.status, { state: 'connected', lastError: undefined });
});

test('while nothing answers it is not shown as connected', async (t) => {
  const s = sessionOf(t);
  await settle();
  await s.last().welcome();
  await s.last().end();
  t.not(s.session.status.state, 'connected');
});

test('delays grow as Swarm’s do, up to the maximum, and each is drawn from nothing to that', async (t) => {
  for (const drawn of [0.25, 1]) {
    const s = sessionOf(t, { drawn });
    const part = Buffer.alloc(4, Math.round(drawn * 255)).readUInt32BE() / 2 ** 32;
    for (const backoffMs of [100, 300, 700, 1_500, 3_100, 6_300, 8_000, 8_000]) {
      await settle();
      const count = s.attempts.length;
      await s.last().end(lost());
      await s.clock.advance(backoffMs * part - 1);
      t.is(s.attempts.length, count, `before ${backoffMs * part} ms`);
      await s.clock.advance(2);
      t.is(s.attempts.length, count + 1, `after ${backoffMs * part} ms`);
    }
    s.stop.abort();
  }
});

test('a session that lasted sets the delay back', async (t) => {
  const s = sessionOf(t);
  for (let n = 0; n < 6; n++) {
    await settle();
    await s.last().end(lost());
    await s.clock.advance(agentLimits.backoffMaxMs);
  }
  await s.last().welcome();
  const count = s.attempts.length;
  await s.clock.advance(agentLimits.backoffMaxMs + 1);
  await s.last().end(lost());
  await s.clock.advance(agentLimits.backoffBaseMs);
  t.is(s.attempts.length, count + 1);
});

test('sessions that end as soon as they have begun come further and further apart', async (t) => {
  const s = sessionOf(t);
  for (let n = 0; n < 6; n++) {
    await settle();
    await s.last().welcome();
    await s.last().end(lost());
    await s.clock.advance(agentLimits.backoffMaxMs);
  }
  await settle();
  await s.last().welcome();
  const count = s.attempts.length;
  await s.last().end(lost());
  await s.clock.advance(agentLimits.backoffBaseMs);
  t.is(s.attempts.length, count, 'no sooner than the back-off has grown to');
});

test('managers take turns, and one that becomes known is tried', async (t) => {
  const s = sessionOf(t, { managers: ['m1:1', 'm2:1'] });
  for (let n = 0; n < 4; n++) {
    await settle();
    await s.last().end(lost());
    await s.clock.advance(agentLimits.backoffMaxMs);
  }
  t.deepEqual(
    s.attempts.slice(0, 4).map(({ manager }) => manager),
    ['m1:1', 'm2:1', 'm1:1', 'm2:1'],
  );
  s.known.splice(0, 2, 'm3:1');
  await s.last().end(lost());
  await s.clock.advance(agentLimits.backoffMaxMs);
  t.is(s.last().manager, 'm3:1');
});

test('a node that is no longer one of the cluster is told so, and asks seldom', async (t) => {
  const s = sessionOf(t);
  await settle();
  await s.last().end(lost());
  t.is(s.expelled(), 0);
  await s.clock.advance(agentLimits.backoffMaxMs);
  await s.last().end(new InroError('not_permitted', 'it was removed'));
  t.is(s.expelled(), 1);
  t.like(s.session.status, { state: 'removed', lastError: { message: 'it was removed' } });
  // Seldom: the manager has nothing else to say to it.
  await s.clock.advance(agentLimits.expelledRetryMs / 2);
  t.is(s.attempts.length, 2);
  await s.clock.advance(agentLimits.expelledRetryMs / 2);
  t.is(s.attempts.length, 3);
  await s.last().end(new InroError('not_permitted', 'it was removed'));
  t.is(s.logged.filter(({ level }) => level >= 40 && level === 50).length, 1, 'said aloud once');
});

test('an error that goes on is said once, aloud, with its remedy', async (t) => {
  const s = sessionOf(t);
  for (const message of ['refused', 'refused', 'refused', 'timed out', 'refused']) {
    await settle();
    await s.last().end(lost(message));
    await s.clock.advance(agentLimits.backoffMaxMs);
  }
  const aloud = s.logged.filter(({ level }) => level >= 40);
  t.is(aloud.length, 3, 'refused, timed out, refused');
  t.true(aloud.every(({ remedy }) => remedy === 'look at it'));
});

test('an error that nobody foresaw does not end it', async (t) => {
  const s = sessionOf(t);
  await settle();
  await s.last().end(new TypeError('x is not a function'));
  t.is(s.session.status.lastError?.code, 'internal');
  await s.clock.advance(agentLimits.backoffMaxMs);
  t.is(s.attempts.length, 2);
});

test('it stops at once: while connected, and while waiting', async (t) => {
  for (const phase of ['connecting', 'connected', 'waiting']) {
    const s = sessionOf(t);
    await settle();
    if (phase === 'connected') await s.last().welcome();
    if (phase === 'waiting') await s.last().end(lost());
    s.stop.abort();
    await s.running;
    t.is(s.session.status.state, 'stopped', phase);
    t.true(s.last().channel.closed.aborted, phase);
    t.is(s.clock.pending, 0, phase);
    await s.clock.advance(60_000);
    t.is(s.attempts.length, 1, phase);
  }
});

test('each stream is closed when it is over, however it ended', async (t) => {
  const s = sessionOf(t);
  for (const error of [undefined, lost(), new InroError('protocol', 'x')]) {
    await settle();
    const { channel } = s.last();
    await s.last().end(error);
    t.true(channel.closed.aborted);
    await s.clock.advance(agentLimits.backoffMaxMs);
  }
});

test('a failure that another certificate may mend expels nobody', async (t) => {
  const s = sessionOf(t);
  await settle();
  s.other.is = true;
  await s.last().end(new InroError('not_permitted', 'no such certificate'));
  t.is(s.expelled(), 0);
  await s.clock.advance(agentLimits.backoffMaxMs);
  s.other.is = false;
  await s.last().end(new InroError('not_permitted', 'no such node'));
  t.is(s.expelled(), 1);
});

test('while there is no use in trying it tries nothing, says why once, and goes on when there is', async (t) => {
  const s = sessionOf(t);
  await settle();
  s.obstacle.why = new InroError('bad_certificate', 'it has expired', { remedy: 'join again' });
  await s.last().end(lost());
  await s.clock.advance(60 * 60_000);
  t.is(s.attempts.length, 1);
  t.like(s.session.status, { state: 'waiting', lastError: { message: 'it has expired' } });
  const told = s.logged.filter(({ msg }) => msg === 'no session with a manager is tried');
  t.deepEqual(
    told.map(({ remedy }) => remedy),
    ['join again'],
  );
  s.obstacle.why = undefined;
  await s.clock.advance(agentLimits.obstacleCheckMs);
  t.is(s.attempts.length, 2);
});
