/** A process that serves a mount as an agent does, and does what served.ts asks of it. Arguments: driver, mount point, threads. */
import { agentLimits } from '../../src/agent/limits.js';
import type { DriverName } from '../../src/agent/mount/drivers.js';
import { createFuseNativeDriver } from '../../src/agent/mount/fuse_native.js';
import { createKernelDriver } from '../../src/agent/mount/kernel.js';
import { openServedArena } from '../../src/crypto/arena.js';
import type { Plaintext } from '../../src/crypto/plaintext.js';
import { addon } from '../../src/system/addon.js';
import { systemClock } from '../../src/system/clock.js';
import type { Order, Reply } from './served.js';

const [name, path, workers] = process.argv.slice(2) as [DriverName, string, string?];
const spinMs = 9;
const restMs = 1;
const collectEveryMs = 250;

const arena = openServedArena(agentLimits.arenaBytes, agentLimits.maxNodes);
const driver =
  name === 'kernel'
    ? createKernelDriver({ arena, clock: systemClock, ...(workers && { workers: Number(workers) }) })
    : createFuseNativeDriver({ clock: systemClock, onError: (error) => console.error(error) });
/** Readers run in the same cgroup as this process, as if they were attached. */
const own = addon().processOf(process.pid);
const gate =
  name === 'kernel' && own !== null && own.cgroup !== 0
    ? { gate: { readers: [{ cgroup: own.cgroup, path: own.cgroupPath }], note: new Uint8Array() } }
    : {};
// As the agent's record of accesses does (src/agent/access/access_log.ts).
setInterval(() => driver.collectAccesses?.(), collectEveryMs);
const values = new Map<string, Plaintext>();
let generations = 0;
let isBusy = false;

async function obey(order: Order): Promise<unknown> {
  switch (order.what) {
    case 'mount':
      await driver.mount({ path });
      driver.serveUntil(Number.MAX_SAFE_INTEGER);
      return { strict: driver.facts().strict, kind: arena.facts().kind, locked: arena.facts().locked };
    case 'publish':
      return publish(order);
    case 'wipe':
      return wipe(order.service);
    case 'busy':
      if (order.busy && !isBusy) setTimeout(spin, restMs);
      isBusy = order.busy;
      return null;
    case 'unmount':
      await driver.unmount();
      return null;
  }
}

/** The file <service>/key, in the place of the one that was there. */
function publish({ service, bytes, mmap }: Extract<Order, { what: 'publish' }>): null {
  const value = arena.take(bytes);
  value.expose().fill('x'.charCodeAt(0));
  values.get(service)?.wipe();
  values.set(service, value);
  const owner = { uid: 0, gid: 0, mode: 0o444, modifiedMs: 0 };
  driver.publish({
    taskId: service,
    serviceId: service,
    serviceName: service,
    number: ++generations,
    graceMs: 0,
    ...gate,
    files: [{ target: 'key', source: service, ...owner, mmap, value }],
  });
  return null;
}

/** @returns when it began and ended: ns of CLOCK_MONOTONIC, as text because they are no safe integers for long. */
function wipe(service: string): { beganNs: string; endedNs: string; done: boolean } {
  const value = values.get(service);
  const began = process.hrtime.bigint();
  const done = value?.wipe() ?? false;
  const ended = process.hrtime.bigint();
  return { beganNs: String(began), endedNs: String(ended), done };
}

/** Keeps the event loop busy for nine tenths of the time. */
function spin(): void {
  if (!isBusy) return;
  for (const end = performance.now() + spinMs; performance.now() < end;);
  setTimeout(spin, restMs);
}

process.on('message', (order: Order) => {
  obey(order).then(
    (result) => process.send?.({ result } satisfies Reply),
    (error: Error) => process.send?.({ failure: error.message } satisfies Reply),
  );
});
