import test from 'ava';
import { journalEntry, journalStream } from '../../src/cli/journal.js';

const shown = (line: Parameters<typeof journalEntry>[0]) =>
  Buffer.from(journalEntry(line)).toString('latin1');

test('an entry has a message for people and fields for journalctl', (t) => {
  t.is(
    shown({
      level: 30,
      time: 'T',
      pid: 1,
      name: 'agent',
      task: 't1',
      service: 'web',
      generation: 2,
      files: 3,
      msg: 'published',
    }),
    'MESSAGE=published (files=3)\nPRIORITY=6\nSYSLOG_IDENTIFIER=inro\nINRO_PART=agent\nINRO_TASK=t1\nINRO_SERVICE=web\nINRO_GENERATION=2\n',
  );
});

test('an error is said in words, with its remedy and its code', (t) => {
  const err = { message: 'it is full', code: 'arena_full', stack: 'at a\nat b' };
  t.is(
    shown({ level: 50, name: 'agent', secret: 's1', err, remedy: 'remove some', msg: 'not taken in' }),
    'MESSAGE=not taken in: it is full: remove some\nPRIORITY=3\nSYSLOG_IDENTIFIER=inro\nINRO_PART=agent\nINRO_SECRET=s1\nINRO_ERROR=arena_full\n',
  );
});

test('a value with lines of its own is framed by its length', (t) => {
  const err = { message: 'a\nb', code: 'internal', stack: 'c' };
  t.is(
    shown({ level: 60, msg: '', err }),
    'MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPRIORITY=2\nSYSLOG_IDENTIFIER=inro\nINRO_ERROR=internal\nINRO_STACK=c\n',
  );
});

test('standard error that is not the journal gets JSON lines as ever', (t) => {
  t.is(journalStream('1:2'), undefined);
  t.is(journalStream(''), undefined);
});
