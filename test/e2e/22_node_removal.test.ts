/** Removing nodes: what they held is wiped, their certificates are refused on every call, their tasks go elsewhere. */
import { readFile } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { Dispatcher } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { Enrollment } from '../../src/proto/gen/inro/v1/enrollment_pb.js';
import { call, connectTls, openStream } from '../../src/rpc/client.js';
import { nodeCredentials } from '../../src/rpc/tls.js';
import { Host, scenario } from '../support/host.js';
import { eventually } from '../support/inro.js';
import { refusesAsync } from '../support/refuses.js';

const web = '/run/inro/secrets/web';
const agentFolder = '/var/lib/inro/agent';
const listen = '127.0.0.1:4747';

interface Removed {
  id: string;
  tasks: number;
  versions: number;
  wiped: number;
  leaseEndsAt: string | null;
}

interface Status {
  session: { state: string; lastError: string; leaseLeftMs: number };
  arena: { values: number };
}

async function withService(host: Host): Promise<void> {
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'first' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
}

async function identityOf(host: Host) {
  const [rootPem, certificatePem, keyPem] = (await Promise.all(
    ['ca.crt', 'node.crt', 'node.key'].map((file) => readFile(host.outside(`${agentFolder}/${file}`), 'utf8')),
  )) as [string, string, string];
  return { rootPem, certificatePem, keyPem };
}

scenario(
  'removed while readers read: nothing is read after the receipt, the agent says so and asks no more',
  async (t) => {
    const host = await Host.of(t);
    const { agent, nodeId } = await host.startCluster();
    await withService(host);
    // Each reading with the time at which it began.
    const reader = host.spawn([
      'sh',
      '-c',
      `while :; do at=$(date +%s%N); if cat ${web}/key > /dev/null 2>&1; then echo "read $at"; else echo "none $at"; fi; done`,
    ]);
    const held = host.spawn([
      'sh',
      '-c',
      `exec 3< ${web}/key; echo opened; until [ -e read-on ]; do sleep 0.02; done; dd bs=100 count=1 <&3`,
    ]);
    await held.printed(/opened/);
    await reader.printed(/read/);
    const { stdout } = await host.sh(`inro node rm --json ${nodeId}; date +%s%N`);
    const removed = JSON.parse(stdout.slice(0, stdout.lastIndexOf('}') + 1)) as Removed;
    const endedNs = BigInt(stdout.trimEnd().split('\n').at(-1) ?? '');
    t.like(removed, { id: nodeId, tasks: 1, versions: 1, wiped: 1, leaseEndsAt: null });
    await reader.printed(/none/);
    await reader.kill9();
    const late = reader.stdout
      .split('\n')
      .filter((line) => line.startsWith('read ') && BigInt(line.slice(5)) > endedNs);
    t.deepEqual(late, []);
    await host.sh('touch read-on');
    t.not(await held.exited, 0);
    t.notRegex(held.stdout, /first/);

    const status = await eventually('the agent knows', async () => {
      const now = await host.json<Status>(['agent', 'status']);
      return now.session.state === 'removed' && now;
    });
    t.regex(status.session.lastError, new RegExp(`^node ${nodeId} was removed from the cluster at `));
    t.like(status, { session: { leaseLeftMs: 0 }, arena: { values: 0 } });
    t.notRegex(agent.stderr, /silent for/, 'it is told, and does not find out');
    t.is((agent.stderr.match(/this node is not one of the cluster any more/g) ?? []).length, 1);
    t.deepEqual(await host.json(['node', 'ls']), []);
    t.like((await host.json(['service', 'ps', 'web']))[0], { state: 'NEW', error: 'no node is ready' });
  },
);
