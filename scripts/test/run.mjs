/**
 * One run of the tests: its id, its directory, and what it leaves on the host. Tests name what they make after the id:
 * processes inherit INRO_TEST_RUN, mounts lie below TMPDIR, network namespaces and links are called inro-<id>-*.
 */
import { randomInt } from 'node:crypto';
import {
  chmodSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import {
  alive,
  commandLine,
  descendants,
  end,
  environment,
  lineage,
  processes,
  read,
} from '../processes.mjs';
import {
  deleteLink,
  deleteNamespace,
  detach,
  linksOf,
  mountsBelow,
  namespacePath,
  namespacesOf,
} from './leftovers.mjs';

/** Short: a link name has 15 characters, a socket path 107. */
const idLength = 4;
const prefix = '/tmp/inro-test-';
const ownerFile = '.owner';
/** A process that is on its way out when ava ends is not a leak. */
const settleMs = 1_000;
const killGraceMs = 2_000;
const endRounds = 3;
const shownCommandChars = 120;

export function begin() {
  for (;;) {
    const id = randomInt(36 ** idLength)
      .toString(36)
      .padStart(idLength, '0');
    const directory = prefix + id;
    try {
      mkdirSync(directory, { mode: 0o711 });
    } catch (error) {
      if (error.code === 'EEXIST') continue;
      throw error;
    }
    chmodSync(directory, 0o711); // others may pass through, whatever the umask: tests act as ordinary users too
    writeFileSync(join(directory, ownerFile), owner());
    return { id, directory };
  }
}

/**
 * Ends, detaches and deletes what the run left, and says each.
 * @param keep only says it
 * @returns how many things were left; files in the run's directory do not count
 */
export async function reap({ id, directory }, { keep, say }) {
  for (let waitedMs = 0; waitedMs < settleMs && processesOf({ id, directory }).length > 0; waitedMs += 50) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const left = {
    processes: processesOf({ id, directory }),
    mounts: mountsBelow(directory),
    namespaces: namespacesOf(id),
    links: linksOf(id),
  };
  const named = [
    ...left.processes.map(({ pid }) => `process ${pid} (${commandLine(pid).slice(0, shownCommandChars)})`),
    ...left.mounts.map(({ path, type }) => `${type} mount ${path}`),
    ...left.namespaces.map((name) => `network namespace ${name}`),
    ...left.links.map((name) => `link ${name}`),
  ];
  for (const each of named) say(`left behind: ${each}`);
  if (keep) {
    say(`kept: ${directory}`);
    return named.length;
  }
  // More than once: what is being ended may start others.
  for (let round = 0, some = left.processes; some.length > 0 && round < endRounds; round++) {
    await end(some, killGraceMs);
    some = processesOf({ id, directory });
  }
  for (const mount of left.mounts) detach(mount);
  for (const name of left.namespaces) deleteNamespace(name);
  for (const name of left.links) deleteLink(name);
  // A reader of a hung mount can be ended only now.
  const stuck = await end(processesOf({ id, directory }), killGraceMs);
  for (const { pid } of stuck) say(`process ${pid} cannot be ended`);
  if (mountsBelow(directory).length > 0) say(`${directory} stays: a mount below it cannot be detached`);
  else rmSync(directory, { recursive: true, force: true });
  return named.length;
}

/** Runs whose owner was killed before it could clean up. */
export async function reapDeadRuns(say) {
  const directories = readdirSync('/tmp').map((name) => join('/tmp', name));
  for (const directory of directories.filter((each) => each.startsWith(prefix) && ownerDead(each))) {
    say(`an earlier run was killed: clearing ${directory}`);
    await reap({ id: directory.slice(prefix.length), directory }, { keep: false, say });
  }
}

/**
 * All that carry the run's id or its directory in their environment, name the directory, or live in its namespaces; and
 * all below those: a child may have been started with an empty environment.
 */
function processesOf({ id, directory }) {
  const mine = lineage(process.pid);
  const mark = `INRO_TEST_RUN=${id}`;
  const inside = new RegExp(`${directory}(?![a-z0-9])`);
  const spaces = new Set(
    namespacesOf(id).map((name) => statSync(namespacePath(name), { throwIfNoEntry: false })?.ino),
  );
  const found = new Map();
  for (const one of processes()) {
    if (mine.has(one.pid) || one.state === 'Z') continue;
    const variables = environment(one.pid);
    const named =
      variables.includes(mark) || inside.test(variables.join('\n')) || inside.test(commandLine(one.pid));
    if (!named && !spaces.has(namespaceOf(one.pid))) continue;
    for (const each of [one, ...descendants(one.pid)]) found.set(each.pid, each);
  }
  return [...found.values()].filter(({ state }) => state !== 'Z');
}

function namespaceOf(pid) {
  try {
    return Number(/\d+/.exec(readlinkSync(`/proc/${pid}/ns/net`))[0]);
  } catch {
    return -1; // gone, or another user's
  }
}

/** Who runs here: boot, pid namespace, pid and start. Only where boot and namespace are ours can the pid be judged. */
function owner() {
  const { pid, start } = read(process.pid);
  return [...whereabouts(), pid, start].join(' ');
}

function whereabouts() {
  return [readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(), readlinkSync('/proc/self/ns/pid')];
}

function ownerDead(directory) {
  try {
    if (statSync(directory).uid !== process.getuid()) return false;
    const [boot, space, pid, start] = readFileSync(join(directory, ownerFile), 'utf8').split(' ');
    const [ourBoot, ourSpace] = whereabouts();
    if (boot !== ourBoot) return true;
    return space === ourSpace && !alive({ pid: Number(pid), start });
  } catch {
    return false; // being made or being taken away
  }
}
