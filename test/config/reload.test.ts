/** What a running process makes of its file when it is told to read it again. */
import test, { type ExecutionContext } from 'ava';
import { pino } from 'pino';
import type { AgentConfig } from '../../src/config/keys.js';
import { Reload } from '../../src/config/reload.js';
import { InroError } from '../../src/model/error.js';

interface Line {
  level: number;
  msg: string;
  changed?: object;
  keys?: string[];
  remedy?: string;
}

function running(started: AgentConfig, { decided = [] as (keyof AgentConfig)[], level = 'info' } = {}) {
  const lines: Line[] = [];
  const log = pino({ level }, { write: (line: string) => void lines.push(JSON.parse(line) as Line) });
  let file: () => AgentConfig = () => started;
  const applied: unknown[] = [];
  const reload = new Reload<AgentConfig>({
    read: () => file(),
    started,
    apply: {
      managers: (managers) => applied.push(managers),
      logLevel: (next) => {
        applied.push(next);
        log.level = next ?? 'info';
      },
    },
    decided: new Set(decided),
    log,
  });
  return {
    /** The file says something else now. @returns what is logged of it. */
    now: (next: AgentConfig | InroError): Line[] => {
      file = () => {
        if (next instanceof InroError) throw next;
        return next;
      };
      lines.length = 0;
      reload.again();
      return lines;
    },
    applied,
  };
}

const said = (t: ExecutionContext, lines: Line[], ...expected: Partial<Line>[]): void => {
  t.is(lines.length, expected.length, JSON.stringify(lines));
  expected.forEach((line, at) => t.like(lines[at], line));
};

test('what may change at once does, and is said', (t) => {
  const { now, applied } = running({ managers: ['a:1'], state: '/s' });
  said(t, now({ managers: ['b:1'], state: '/s' }), {
    msg: 'the settings have changed',
    changed: { managers: ['b:1'] },
  });
  t.deepEqual(applied, [['b:1']]);
});

test('a key that is taken away goes back to its default', (t) => {
  const { now, applied } = running({ managers: ['a:1'] });
  said(t, now({}), { changed: { managers: null } });
  t.deepEqual(applied, [undefined]);
});

test('nothing new is nothing done', (t) => {
  const { now, applied } = running({ managers: ['a:1'], state: '/s' });
  said(t, now({ state: '/s', managers: ['a:1'] }), {
    level: 30,
    msg: /* info */ 'the settings were read again: nothing has changed',
  });
  t.deepEqual(applied, []);
});

test('what needs a restart is named at each reload until it is as it was', (t) => {
  const { now, applied } = running({ state: '/s' });
  const restart = { level: 40, msg: 'these settings have changed, and need a restart' };
  said(t, now({ state: '/t', mount: '/m' }), { ...restart, keys: ['state', 'mount'] });
  said(
    t,
    now({ state: '/t', logLevel: 'info' }),
    { changed: { logLevel: 'info' } },
    { ...restart, keys: ['state'] },
  );
  said(t, now({ state: '/s', logLevel: 'info' }), { level: 30 });
  t.deepEqual(applied, ['info']);
});

test('a broken file is an error, and changes nothing; mended, it counts from where it was', (t) => {
  const { now, applied } = running({ managers: ['a:1'] });
  const broken = new InroError('bad_config', "unknown key 'x'", { remedy: 'the keys are ...' });
  said(t, now(broken), {
    level: 50,
    msg: 'the settings stay as they are: the new ones cannot be used',
    remedy: 'the keys are ...',
  });
  t.deepEqual(applied, []);
  said(t, now({ managers: ['b:1'] }), { changed: { managers: ['b:1'] } });
});

test('what an option decided, the file does not change', (t) => {
  const { now, applied } = running({ state: '/s' }, { decided: ['state', 'logLevel'] });
  said(t, now({ state: '/t', logLevel: 'debug' }), {
    msg: 'the settings were read again: nothing has changed',
  });
  t.deepEqual(applied, []);
});

test('a change of the log level is heard, whichever way it goes', (t) => {
  const louder = running({ logLevel: 'error' }, { level: 'error' });
  said(t, louder.now({ logLevel: 'debug' }), { changed: { logLevel: 'debug' } });
  said(t, louder.now({ logLevel: 'error' }), { changed: { logLevel: 'error' } });
});
