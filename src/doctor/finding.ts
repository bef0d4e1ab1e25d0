/** What one check of a host has found. */
import { asInroError } from '../model/error.js';

export interface Finding {
  /** What was looked at. */
  name: string;
  /**
   * ok: as it should be. note: good to know, nothing need be done. warn: an agent runs, but less well or not for long.
   * fail: an agent does not run, or serves nothing.
   */
  state: 'ok' | 'note' | 'warn' | 'fail';
  detail: string;
  /** What to type or change. */
  remedy?: string;
}

export function ok(name: string, detail: string): Finding {
  return { name, state: 'ok', detail };
}

export function note(name: string, detail: string, remedy?: string): Finding {
  return found('note', name, detail, remedy);
}

export function warn(name: string, detail: string, remedy?: string): Finding {
  return found('warn', name, detail, remedy);
}

export function fail(name: string, detail: string, remedy?: string): Finding {
  return found('fail', name, detail, remedy);
}

/** For checks that ask the agent's own code: what it throws is what would keep the agent from running. */
export function failure(name: string, thrown: unknown): Finding {
  const { message, remedy } = asInroError(thrown);
  return fail(name, message, remedy);
}

function found(state: Finding['state'], name: string, detail: string, remedy: string | undefined): Finding {
  return { name, state, detail, ...(remedy === undefined ? {} : { remedy }) };
}
