/** inro status: the cluster in a few lines, and what ends first. */
import { Control, type ClusterStatus } from '../../proto/gen/inro/v1/control_pb.js';
import { call } from '../../rpc/client.js';
import { withManager, type ManagerOption } from '../operator.js';
import { ago, iso, isoOrNull, printFacts, printJson, printLine, printTable } from '../print.js';

export async function status(options: ManagerOption & { json?: boolean }): Promise<void> {
  const found = await withManager(options, (manager) => call(manager, Control, 'getStatus', {}));
  if (options.json === true) return printJson(shown(found));
  const facts: [string, string][] = [
    ['Cluster', found.clusterId || '-'],
    ['Manager', found.locked ? "LOCKED: it serves nothing until 'inro manager unlock'" : serves(found)],
    ['Autolock', autolockText[found.autolock] ?? found.autolock],
  ];
  if (found.locked)
    facts.push(['Nodes', `${found.nodes}; they go on with what they hold, within their leases`]);
  else
    facts.push(
      ['Nodes', `${found.nodesReady} of ${found.nodes} ready`],
      ['Tasks', `${found.tasks} of ${found.services} services`],
      ['Secrets', String(found.secrets)],
    );
  printFacts(facts);
  if (found.expiries.length === 0) return;
  printLine('\nEnds first');
  printTable(
    ['WHAT', 'OF', 'AT THE LATEST', ''],
    found.expiries.map(({ kind, name, id, atMs }) => [kind, name || id || '-', iso(atMs), ago(atMs)]),
  );
}

const autolockText: Readonly<Record<string, string>> = {
  off: 'off: who copies its disk has its keys (inro manager run --autolock)',
  wanted: "not in force: nobody has the unlock key yet (type 'inro manager unlock-key')",
  on: 'on',
};

function serves({ version, startedMs }: ClusterStatus): string {
  return `inro ${version}, started ${ago(startedMs)}`;
}

function shown(found: ClusterStatus) {
  return {
    cluster: found.clusterId,
    locked: found.locked,
    autolock: found.autolock,
    version: found.version,
    startedAt: isoOrNull(found.startedMs),
    nodes: found.nodes,
    nodesReady: found.nodesReady,
    secrets: found.secrets,
    services: found.services,
    tasks: found.tasks,
    expiries: found.expiries.map(({ kind, id, name, atMs }) => ({ kind, id, name, at: iso(atMs) })),
  };
}
