/** A manager and two nodes, each a host of its own with its own network, on one bridge. */
import type { ExecutionContext } from 'ava';
import { Host, type Manager } from './host.js';

export interface NodeHost {
  host: Host;
  id: string;
  /** Its end of the wire, on the manager's host. */
  wire: string;
}

export interface TwoNodes {
  manager: Host;
  a: NodeHost;
  b: NodeHost;
  /** Of the process that runs now. */
  readonly managerPid: number;
  killManager(): Promise<void>;
  startManager(): Promise<void>;
}

const managerAddress = '10.77.0.1:4747';

/** @param start the agent of a host that has joined. */
export async function twoNodes(
  t: ExecutionContext,
  start: (host: Host) => Promise<unknown> = (host) => host.startAgent(),
): Promise<TwoNodes> {
  const manager = await Host.of(t, { hostname: 'manager', ownNetwork: true });
  await must(
    manager,
    'ip link add br0 type bridge && ip address add 10.77.0.1/24 dev br0 && ip link set br0 up',
  );
  const startManager = (): Promise<Manager> => manager.startManager({ listen: '0.0.0.0:4747' });
  let running = await startManager();
  const token = await manager.ask(['token', 'show', 'worker']);
  const node = async (name: string, address: string): Promise<NodeHost> => {
    const host = await Host.of(t, { hostname: `node-${name}`, ownNetwork: true });
    const wire = `to-${name}`;
    await must(
      manager,
      `ip link add ${wire} type veth peer name eth0 netns ${host.pid} && ip link set ${wire} master br0 up`,
    );
    await must(host, `ip address add ${address}/24 dev eth0 && ip link set eth0 up`);
    const id = await host.join(token, managerAddress);
    await start(host);
    return { host, id, wire };
  };
  return {
    manager,
    a: await node('a', '10.77.0.2'),
    b: await node('b', '10.77.0.3'),
    get managerPid() {
      return running.daemon.pid;
    },
    killManager: () => running.kill9(),
    startManager: async () => {
      running = await startManager();
    },
  };
}

async function must(host: Host, line: string): Promise<string> {
  const { code, stdout, stderr } = await host.sh(line);
  if (code !== 0) throw new Error(`${line}: ${stderr}`);
  return stdout;
}
