/** What an agent does for the workloads of a task when one of its files is new or has a new value. */
import { InroError } from './error.js';
import { checkName, quoted } from './name.js';

export type OnChange =
  | { kind: 'none' }
  /** To the main process of each. `signal` as SIGHUP. */
  | { kind: 'signal'; signal: string }
  | { kind: 'restart' }
  /** A command that the node's own configuration names. */
  | { kind: 'hook'; hook: string };

/** Those that programs are told to read their files again with, or to end. */
const signals = ['HUP', 'INT', 'QUIT', 'USR1', 'USR2', 'TERM', 'ALRM', 'CONT', 'WINCH', 'URG', 'IO'];

/** Parses `none`, `restart`, `signal=HUP` (or `signal=SIGHUP`), `hook=NAME`. @throws bad_input */
export function parseOnChange(text: string): OnChange {
  const [kind, ...rest] = text.split('=');
  const value = rest.join('=');
  if (rest.length === 0 && (kind === 'none' || kind === 'restart')) return { kind };
  if (kind === 'hook' && value !== '') return { kind, hook: checkName('hook', value) };
  if (kind === 'signal' && value !== '') {
    const signal = value.toUpperCase().replace(/^SIG/, '');
    if (signals.includes(signal)) return { kind, signal: `SIG${signal}` };
    throw new InroError('bad_input', `${quoted(value)} is no signal for a change`, {
      remedy: `use one of ${signals.join(', ')}`,
    });
  }
  throw new InroError('bad_input', `${quoted(text)} is nothing that can be done on a change`, {
    remedy: 'write none, signal=HUP, restart, or hook=NAME',
  });
}

/** The one way to write it: what is stored and sent. */
export function onChangeText(onChange: OnChange): string {
  if (onChange.kind === 'signal') return `signal=${onChange.signal.slice('SIG'.length)}`;
  return onChange.kind === 'hook' ? `hook=${onChange.hook}` : onChange.kind;
}

/** What was stored or sent, checked; '' stays ''. @throws bad_input */
export function canonicalOnChange(text: string): string {
  return text === '' ? '' : onChangeText(parseOnChange(text));
}
