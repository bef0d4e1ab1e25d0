/** Several managers of one cluster, on one host and on one real etcd. */
import type { ExecutionContext } from 'ava';
import { etcdCluster, freePort, type EtcdCluster } from './etcd.js';
import { Host } from './host.js';
import { eventually, type Daemon, type Result, type RunOptions } from './inro.js';

export interface OneManager {
  number: number;
  /** HOST:PORT. */
  address: string;
  state: string;
  /** `unix:PATH`. */
  socket: string;
  id: () => Promise<string>;
  /** @param more options of `inro manager run`. */
  start(...more: string[]): Promise<Daemon>;
  daemon(): Daemon;
}

export interface ManagersOnEtcd {
  host: Host;
  etcd: EtcdCluster;
  managers: OneManager[];
  /** What names the store to `inro manager run`. */
  store: readonly string[];
  /** Runs `inro ARGS` on the socket of that manager. */
  ask(manager: OneManager, args: readonly string[], options?: RunOptions): Promise<string>;
  inro(manager: OneManager, args: readonly string[], options?: RunOptions): Promise<Result>;
  /** By what it says of itself. */
  leader(asked: OneManager): Promise<OneManager>;
  /** One that is not there yet: where it would be. */
  another(): Promise<OneManager>;
  join(manager: OneManager, through: OneManager): Promise<void>;
}

/** @param count how many managers are to run; the first founds the cluster. */
export async function managersOnEtcd(
  t: ExecutionContext,
  { count, members = 3 }: { count: number; members?: number },
): Promise<ManagersOnEtcd> {
  const etcd = await etcdCluster(t, { members });
  const host = await Host.of(t);
  const { ca, cert, key } = etcd.files;
  const url = `etcd://${etcd.endpoints.join(',')}/inro`;
  const store = ['--store', url, '--store-ca', ca, '--store-cert', cert, '--store-key', key];
  const managers: OneManager[] = [];
  const another = async (): Promise<OneManager> => {
    const number = managers.length + 1;
    const address = `127.0.0.1:${await freePort()}`;
    const state = `/var/lib/inro/manager${number}`;
    const path = `/run/inro/manager${number}.sock`;
    let daemon: Daemon | undefined;
    const manager: OneManager = {
      number,
      address,
      state,
      socket: `unix:${path}`,
      id: async () => {
        const list = await host.json<{ id: string; address: string }[]>([
          'manager',
          'ls',
          '--manager',
          `unix:${path}`,
        ]);
        return list.find((one) => one.address === address)?.id ?? '';
      },
      start: async (...more) => {
        const where = ['--state', state, '--listen', address, '--socket', path];
        daemon = host.start(['manager', 'run', ...where, ...store, ...more]);
        await daemon.printed(/"manager (is ready|waits)"/);
        return daemon;
      },
      daemon: () => {
        if (daemon === undefined) throw new Error(`manager ${number} was not started`);
        return daemon;
      },
    };
    managers.push(manager);
    return manager;
  };
  const ask = (manager: OneManager, args: readonly string[], options: RunOptions = {}): Promise<string> =>
    host.ask([...args, '--manager', manager.socket], { timeoutMs: 60_000, ...options });
  const cluster: ManagersOnEtcd = {
    host,
    etcd,
    managers,
    store,
    ask,
    inro: (manager, args, options = {}) =>
      host.inro([...args, '--manager', manager.socket], { timeoutMs: 60_000, ...options }),
    leader: async (asked) => {
      const list = JSON.parse(await ask(asked, ['manager', 'ls', '--json'])) as {
        address: string;
        state: string;
      }[];
      const { address } = list.find(({ state }) => state === 'leader') ?? {};
      const found = managers.find((one) => one.address === address);
      if (found === undefined) throw new Error('no manager leads');
      return found;
    },
    another,
    join: async (manager, through) => {
      const token = await ask(through, ['token', 'create', 'manager']);
      const { address } = through;
      await host.ask(['manager', 'join', '--token', '-', '--manager', address, '--state', manager.state], {
        stdin: token,
      });
    },
  };
  const first = await another();
  await first.start();
  for (let n = 1; n < count; n++) {
    const next = await another();
    await cluster.join(next, first);
    await next.start();
  }
  await eventually('all managers have said where they are', async () => {
    const list = JSON.parse(await ask(first, ['manager', 'ls', '--json'])) as { address: string }[];
    return list.every(({ address }) => address !== '');
  });
  return cluster;
}
