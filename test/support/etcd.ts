/** Real etcd members, on loopback, that talk TLS with certificates on both sides. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { EtcdCertificates } from '../../src/store/etcd_client.js';
import { opensslCa, type OpensslCa } from './openssl_ca.js';

export interface EtcdMember {
  name: string;
  /** HOST:PORT for clients. */
  endpoint: string;
  pid(): number;
  kill(signal?: NodeJS.Signals): Promise<void>;
  start(): Promise<void>;
}

export interface EtcdCluster {
  members: EtcdMember[];
  endpoints: string[];
  /** Where all of it lies: certificates, and a folder for each member. */
  folder: string;
  certificates: EtcdCertificates;
  /** Paths of PEM files: what a client shows, and whom it believes. */
  files: { ca: string; cert: string; key: string };
  /** What etcdctl prints. */
  ctl(...args: string[]): string;
  leader(): EtcdMember;
}

interface Options {
  members: number;
  args?: readonly string[];
  /** Where all of it is to lie. */
  folder?: string;
  /** What runs the members, such as `ip netns exec NAME`, by number. */
  within?: (member: number) => readonly string[];
  address?: (member: number) => string;
}

/** @param t its teardown ends them. */
export async function etcdCluster(
  t: Pick<ExecutionContext, 'teardown'>,
  { members: count, args = [], folder: given, within = () => [], address = () => '127.0.0.1' }: Options,
): Promise<EtcdCluster> {
  const folder = given ?? mkdtempSync(join(tmpdir(), 'inro-etcd-'));
  mkdirSync(folder, { recursive: true });
  const running = new Map<string, ChildProcess>();
  t.teardown(async () => {
    await Promise.all([...running.values()].map((member) => ended(member, 'SIGKILL')));
    rmSync(folder, { recursive: true, force: true });
  });
  const ca = opensslCa(t, { name: '/CN=etcd CA' });
  const file = (name: string, content: string): string => {
    const path = join(folder, name);
    writeFileSync(path, content, { mode: 0o600 });
    return path;
  };
  const addresses = Array.from({ length: count }, (_, n) => address(n));
  const member = certificateBy(t, ca, 'member', addresses);
  const client = certificateBy(t, ca, 'inro', []);
  const paths = {
    ca: file('ca.crt', ca.certPem),
    memberCert: file('member.crt', member.certPem),
    memberKey: file('member.key', member.keyPem),
    cert: file('client.crt', client.certPem),
    key: file('client.key', client.keyPem),
  };
  const spots = await Promise.all(
    addresses.map(async (host, n) => ({
      name: `m${n}`,
      host,
      client: await freePort(),
      peer: await freePort(),
    })),
  );
  const initial = spots.map(({ name, host, peer }) => `${name}=https://${host}:${peer}`).join(',');
  const start = async (n: number): Promise<void> => {
    const spot = spots[n];
    if (spot === undefined) throw new Error(`no member ${n}`);
    const { name, host, client: port, peer } = spot;
    const url = `https://${host}:${port}`;
    const peerUrl = `https://${host}:${peer}`;
    const tls = [
      '--trusted-ca-file',
      paths.ca,
      '--cert-file',
      paths.memberCert,
      '--key-file',
      paths.memberKey,
    ];
    const words = [
      'setpriv --pdeathsig KILL etcd --client-cert-auth --peer-client-cert-auth --initial-cluster-token inro-test',
      `--name ${name} --data-dir ${join(folder, name)} --initial-cluster ${initial}`,
      `--listen-client-urls ${url} --advertise-client-urls ${url}`,
      `--listen-peer-urls ${peerUrl} --initial-advertise-peer-urls ${peerUrl}`,
      ...tls,
      ...tls.map((word) => word.replace(/^--/, '--peer-')),
      ...args,
    ].flatMap((word) => word.split(' '));
    const [program = '', ...rest] = [...within(n), ...words];
    const child = spawn(program, rest, { stdio: 'ignore' });
    running.set(name, child);
  };
  const etcdctl = (endpoints: readonly string[], words: readonly string[]): string => {
    const tls = ['--cacert', paths.ca, '--cert', paths.cert, '--key', paths.key];
    const [program, ...before] = [...within(0), 'etcdctl'];
    const { stdout, stderr, status } = spawnSync(
      program,
      [...before, `--endpoints=${endpoints.join(',')}`, '--command-timeout=2s', ...tls, ...words],
      { encoding: 'utf8', env: { ...process.env, ETCDCTL_API: '3' } },
    );
    if (status !== 0) throw new Error(`etcdctl ${words.join(' ')}: ${stderr}`);
    return stdout;
  };
  const members = spots.map(({ name, host, client: port }, n): EtcdMember => ({
    name,
    endpoint: `${host}:${port}`,
    pid: () => running.get(name)?.pid ?? 0,
    kill: async (signal = 'SIGKILL') => {
      const child = running.get(name);
      running.delete(name);
      if (child !== undefined) await ended(child, signal);
    },
    start: () => start(n),
  }));
  const endpoints = members.map(({ endpoint }) => endpoint);
  for (const one of members) await one.start();
  for (let tries = 0; ; tries++) {
    try {
      etcdctl(endpoints.slice(0, 1), ['endpoint', 'health', '--cluster']);
      break;
    } catch (error) {
      if (tries > 60) throw error;
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }
  return {
    members,
    endpoints,
    folder,
    certificates: {
      ca: Buffer.from(ca.certPem),
      key: Buffer.from(client.keyPem),
      cert: Buffer.from(client.certPem),
    },
    files: { ca: paths.ca, cert: paths.cert, key: paths.key },
    ctl: (...words) => etcdctl(endpoints, words),
    leader: () => {
      for (const one of members) {
        if (!running.has(one.name)) continue;
        const [status] = JSON.parse(etcdctl([one.endpoint], ['endpoint', 'status', '-w', 'json'])) as {
          Status: { header: { member_id: number }; leader: number };
        }[];
        if (status !== undefined && status.Status.header.member_id === status.Status.leader) return one;
      }
      throw new Error('no member leads');
    },
  };
}

function certificateBy(
  t: Pick<ExecutionContext, 'teardown'>,
  by: OpensslCa,
  name: string,
  addresses: readonly string[],
): OpensslCa {
  const names =
    addresses.length === 0
      ? []
      : [`subjectAltName=${[...new Set(addresses)].map((a) => `IP:${a}`).join(',')}`];
  return opensslCa(t, {
    name: `/CN=${name}`,
    by,
    extensions: [
      'basicConstraints=critical,CA:FALSE',
      'keyUsage=critical,digitalSignature',
      'extendedKeyUsage=serverAuth,clientAuth',
      ...names,
    ],
  });
}

async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill(signal);
  await exit;
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
