/**
 * The processes of this host as /proc shows them: who descends from whom, who carries a mark, and how to end them.
 * Where there is no /proc, nothing is found and nothing is ended.
 */
import { readFileSync, readdirSync } from 'node:fs';

const pollMs = 20;
const npmCheckMs = 250;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * All processes: {pid, ppid, start, state}. `start` (clock ticks since boot, proc(5) stat field 22) tells a process from
 * a later one with the same pid.
 */
export function processes() {
  return entries('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => read(Number(name)))
    .filter(Boolean);
}

/** One process, or undefined when it is gone. */
export function read(pid) {
  const stat = text(`/proc/${pid}/stat`);
  // The command name may hold spaces and brackets: the fields begin after the last bracket.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.length < 20
    ? undefined
    : { pid, ppid: Number(fields[1]), start: fields[19], state: fields[0] };
}

/** True while it runs; a zombie has ended. */
export function alive({ pid, start }) {
  const now = read(pid);
  return now !== undefined && now.start === start && now.state !== 'Z' && now.state !== 'X';
}

/** Everything below `pid`, without it. */
export function descendants(pid) {
  const everyone = processes();
  const found = new Set([pid]);
  for (let before = 0; before !== found.size;) {
    before = found.size;
    for (const one of everyone) if (found.has(one.ppid)) found.add(one.pid);
  }
  return everyone.filter((one) => one.pid !== pid && found.has(one.pid));
}

/** The pids from `pid` up to the first process. */
export function lineage(pid) {
  const pids = new Set();
  for (let one = read(pid); one !== undefined && !pids.has(one.pid); one = read(one.ppid)) pids.add(one.pid);
  return pids;
}

/** Its command line with spaces between the words; what another user may not see is empty. */
export function commandLine(pid) {
  return text(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();
}

/** The environment it was started with, NAME=value each; empty where it may not be seen. */
export function environment(pid) {
  return text(`/proc/${pid}/environ`).split('\0');
}

/** TERM, then KILL for those that still run after graceMs. Gives back those that run even then. */
export async function end(list, graceMs) {
  for (const signal of ['SIGTERM', 'SIGKILL']) {
    for (const one of list) if (alive(one)) send(one.pid, signal);
    for (let waitedMs = 0; waitedMs < graceMs && list.some(alive); waitedMs += pollMs) await sleep(pollMs);
  }
  return list.filter(alive);
}

/**
 * Calls back when the npm that runs us has gone: it passes on neither HUP nor its own death, and not every shell
 * between it and us passes on a TERM. Without npm nobody above us is waiting for us, and nothing is watched.
 */
export function onNpmGone(callback) {
  if (process.env.npm_lifecycle_event === undefined) return;
  const shell = commandLine(process.ppid).startsWith('sh -c');
  const above = () => `${process.ppid} ${shell ? read(process.ppid)?.ppid : ''}`;
  const before = above();
  setInterval(() => {
    if (above() !== before) callback();
  }, npmCheckMs).unref();
}

function send(pid, signal) {
  try {
    process.kill(pid, signal);
  } catch {
    // Gone meanwhile, or another user's: the caller looks again.
  }
}

function entries(directory) {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function text(path) {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
