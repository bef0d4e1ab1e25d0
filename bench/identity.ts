/**
 * What a node's identity costs the manager: enrolments, renewals, and full mutual TLS handshakes. Its peers are openssl's own
 * commands: a key, a request and a signature made with them, and s_server behind the same client.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import { askForRenewal } from '../src/agent/renew.js';
import { loadIdentity, type Identity } from '../src/agent/identity.js';
import { joinCluster } from '../src/agent/join.js';
import { parseJoinToken } from '../src/pki/join_token.js';
import { systemClock } from '../src/system/clock.js';
import { Host } from '../test/support/machine.js';
import type { Benchmark, Report } from './support/benchmark.js';
import { cannotMount, cpuUs } from './support/host.js';
import type { Lab } from './support/lab.js';
import { line } from './support/results.js';

/** Of the peer, which starts three programs for each. */
const peerShare = 4;
const peerPort = 47_999;
const handshakeSeconds = 2;

export const benchmark: Benchmark = {
  summary: "enrolments, renewals and TLS handshakes of a manager; against openssl's commands and s_server",
  options: {
    rounds: { standard: 8, means: 'in which each is measured once' },
    nodes: { standard: 60, means: 'that enrol at once in a round, and renew' },
  },
  missing: () => cannotMount(),
  run,
};

interface Cost {
  /** Of the clock, for one. */
  us: number;
  /** Of the serving process, for one. */
  cpuUs: number;
}

async function run(lab: Lab, { rounds = 1, nodes = 1 }: Readonly<Record<string, number>>): Promise<Report> {
  const host = await Host.open({ hostname: 'manager' });
  try {
    const manager = await host.startManager();
    const { pid } = manager.daemon;
    const token = parseJoinToken(await host.ask(['token', 'show', 'worker']));
    const peer = await opensslPeer(lab);
    const costs = new Map<string, Cost[]>();
    const note = (name: string, cost: Cost): void => {
      costs.set(name, [...(costs.get(name) ?? []), cost]);
    };
    for (let round = 0; round < rounds; round++) {
      lab.say(`round ${round + 1} of ${rounds}`);
      const folders = Array.from({ length: nodes }, (_, n) => lab.path(`node-${round}-${n}`));
      const enrol = (stateFolder: string) =>
        joinCluster({ token, manager: manager.address, stateFolder, clock: systemClock });
      note('enrolment', await atOnce(pid, folders, enrol));
      note('signature by openssl', await inTurn(Math.ceil(nodes / peerShare), peer.sign));
      const identities = folders.map((folder) => loadIdentity(folder, Date.now()));
      const renew = (identity: Identity) => askForRenewal(identity, manager.address, Date.now);
      note('renewal', await atOnce(pid, identities, renew));
      const own = folders[0] ?? '';
      const asNode = [join(own, 'node.crt'), join(own, 'node.key'), join(own, 'ca.crt')] as const;
      note('handshake', await handshakes(lab, manager.address, pid, asNode));
      note(
        'handshake with s_server',
        await handshakes(lab, `127.0.0.1:${peerPort}`, peer.pid, peer.asClient),
      );
    }
    return report(costs, nodes);
  } finally {
    await host.close();
  }
}

/** All begin together. */
async function atOnce<T>(pid: number, all: readonly T[], act: (one: T) => Promise<unknown>): Promise<Cost> {
  const cpuBefore = cpuUs(pid);
  const began = performance.now();
  await Promise.all(all.map(act));
  const us = ((performance.now() - began) * 1000) / all.length;
  return { us, cpuUs: (cpuUs(pid) - cpuBefore) / all.length };
}

async function inTurn(count: number, act: () => Promise<unknown>): Promise<Cost> {
  const began = performance.now();
  for (let n = 0; n < count; n++) await act();
  return { us: ((performance.now() - began) * 1000) / count, cpuUs: NaN };
}

/** One after the other, none resumed, both sides with certificates. */
async function handshakes(
  lab: Lab,
  address: string,
  pid: number,
  [certificate, key, root]: readonly [string, string, string],
): Promise<Cost> {
  const cpuBefore = cpuUs(pid);
  const where = ['-connect', address, '-new', '-time', String(handshakeSeconds)];
  const args = ['s_time', ...where, '-cert', certificate, '-key', key, '-CAfile', root, '-verify', '1'];
  const printed = await lab.run('openssl', args);
  const [, count = 'NaN', seconds = 'NaN'] = /(\d+) connections in (\d+) real seconds/.exec(printed) ?? [];
  return { us: (Number(seconds) * 1e6) / Number(count), cpuUs: (cpuUs(pid) - cpuBefore) / Number(count) };
}

interface Peer {
  pid: number;
  sign: () => Promise<unknown>;
  asClient: readonly [certificate: string, key: string, root: string];
}

async function opensslPeer(lab: Lab): Promise<Peer> {
  const path = (name: string): string => lab.path(`peer-${name}`);
  const sh = (script: string) => lab.run('sh', ['-ec', script]);
  const key = (name: string) => `openssl ecparam -name prime256v1 -genkey -noout -out ${path(`${name}.key`)}`;
  const sign = (name: string): string =>
    `${key(name)}; openssl req -new -key ${path(`${name}.key`)} -subj /CN=${name} | ` +
    `openssl x509 -req -CA ${path('ca.crt')} -CAkey ${path('ca.key')} -days 90 -out ${path(`${name}.crt`)} 2>&1`;
  await sh(
    `${key('ca')}; openssl req -new -x509 -key ${path('ca.key')} -subj /CN=peer -days 90 -out ${path('ca.crt')}`,
  );
  await sh(sign('server'));
  await sh(sign('client'));
  const own = ['-cert', path('server.crt'), '-key', path('server.key'), '-CAfile', path('ca.crt')];
  const server = lab.start('openssl', ['s_server', '-accept', `${peerPort}`, ...own, '-Verify', '1', '-www']);
  // It tells of each client, and waits where nobody listens.
  for (const words of [server.stdout, server.stderr]) words?.resume();
  await untilThere(peerPort);
  return {
    pid: server.pid ?? 0,
    sign: () => sh(sign('next')),
    asClient: [path('client.crt'), path('client.key'), path('ca.crt')],
  };
}

async function untilThere(port: number): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const socket = connect(port, '127.0.0.1');
    const isThere = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'error').then(() => false),
    ]).catch(() => false);
    socket.destroy();
    if (isThere) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`openssl s_server does not answer on port ${port}`);
}

function report(costs: ReadonlyMap<string, readonly Cost[]>, nodes: number): Report {
  const of = (name: string, what: keyof Cost): number[] => (costs.get(name) ?? []).map((cost) => cost[what]);
  const openssl = { name: 'openssl commands', values: of('signature by openssl', 'us') };
  return {
    conditions: `${nodes} nodes at once; P-256; client and manager share the processors`,
    lines: [
      line({ claim: 'an enrolment', unit: 'us', values: of('enrolment', 'us'), peer: openssl }),
      line({ claim: "an enrolment: manager's CPU time", unit: 'us', values: of('enrolment', 'cpuUs') }),
      line({ claim: 'a renewal', unit: 'us', values: of('renewal', 'us'), peer: openssl }),
      line({ claim: "a renewal: manager's CPU time", unit: 'us', values: of('renewal', 'cpuUs') }),
      line({
        claim: 'a full handshake',
        unit: 'us',
        values: of('handshake', 'us'),
        peer: { name: 'openssl s_server', values: of('handshake with s_server', 'us') },
      }),
      line({
        claim: "a full handshake: server's CPU time",
        unit: 'us',
        values: of('handshake', 'cpuUs'),
        peer: { name: 'openssl s_server', values: of('handshake with s_server', 'cpuUs') },
      }),
    ],
    notes: [
      "An enrolment is a host's whole way: two connections, a key, a request, the answer, four files synced to disk. It is counted from the first to the last of all that began together.",
      "The peer's is a key, a request and its signature, by three programs: no network, no store.",
    ],
  };
}
