/** Callers that are not who they should be, and bytes that are no messages: refused with words, and the manager goes on. */
import { readFile } from 'node:fs/promises';
import type { ExecutionContext } from 'ava';
import { InroError } from '../../src/model/error.js';
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import { Dispatcher } from '../../src/proto/gen/inro/v1/dispatcher_pb.js';
import { Enrollment } from '../../src/proto/gen/inro/v1/enrollment_pb.js';
import { call, connectTls, connectUnix, openStream, type Connection } from '../../src/rpc/client.js';
import { nodeCredentials, rootCredentials, unverifiedCredentials } from '../../src/rpc/tls.js';
import { Host, scenario } from '../support/host.js';
import { eventually, refused, type Result } from '../support/inro.js';
import { refusesAsync } from '../support/refuses.js';

const agentFolder = '/var/lib/inro/agent';
const mebibyte = 1024 * 1024;

scenario('join: a token of another cluster, and one that never was', async (t) => {
  const ours = await Host.of(t);
  const theirs = await Host.of(t);
  const manager = await ours.startManager();
  await theirs.startManager();
  const [token, foreign] = await Promise.all(
    [ours, theirs].map((host) => host.ask(['token', 'show', 'worker'])),
  );
  const join = (text: string, ...more: string[]): Promise<Result> =>
    ours.inro(['agent', 'join', '--token', '-', '--manager', manager.address, ...more], {
      stdin: text,
    });

  // The root that this manager shows is not the one that the token names: not a byte of the secret is sent.
  refused(
    t,
    await join(foreign as string),
    1,
    /is not of the cluster that this join token is for: its root certificate has another digest/,
  );
  const [, , , digest] = (token as string).split('-');
  refused(
    t,
    await join(`INRO-JOIN-1-${digest}-${'0'.repeat(25)}`),
    1,
    /the join token is not valid any more, or never was/,
  );
  refused(
    t,
    await join((token as string).slice(0, -1)),
    1,
    /the join token is cut: it has 87 of 88 characters/,
  );
  t.is((await ours.sh(`ls ${agentFolder}/node.crt`)).code, 2, 'this host has not joined');
  refused(t, await ours.inro(['agent', 'run']), 1, /this host has not joined a cluster/);
  t.deepEqual(await ours.json(['node', 'ls']), []);

  // The right one, with the end of line that a file or a paste brings.
  t.is((await join('')).code, 1, 'an empty standard input is no token');
  t.regex(await ours.join(`${token}\r\n`, manager.address), /^[0-9a-z]{25}$/);
});

scenario('a node certificate of another cluster', async (t) => {
  const ours = await Host.of(t);
  const theirs = await Host.of(t);
  const { manager } = await ours.startCluster();
  const other = await theirs.startCluster();
  await other.agent.stop();
  const copy = async (...files: string[]): Promise<void> => {
    for (const file of files) {
      const text = await readFile(theirs.outside(`${agentFolder}/${file}`), 'utf8');
      await ours.run(['sh', '-c', `mkdir -p -m 700 /var/lib/stolen && cat > /var/lib/stolen/${file}`], {
        stdin: text,
      });
    }
  };

  // 1. Their whole folder, sent to our manager: the agent does not believe that it is its manager.
  await copy('node.crt', 'node.key', 'ca.crt');
  await ours.sh(`echo '{"managers":["${manager.address}"]}' > /var/lib/stolen/agent.json`);
  const astray = await ours.startAgent({
    state: '/var/lib/stolen',
    mount: '/run/stolen',
    socket: '/run/stolen.sock',
    connected: false,
  });
  await astray.printed(/no session with the manager/);
  const status = await ours.json<{ session: { state: string; lastError: string; leaseLeftMs: number } }>([
    'agent',
    'status',
    '--socket',
    '/run/stolen.sock',
  ]);
  t.is(status.session.state, 'waiting');
  t.regex(status.session.lastError, /certificate/i);
  t.is(status.session.leaseLeftMs, 0);
  t.is(await astray.stop(), 0);

  // 2. Their certificate under our root: refused before anything is mounted.
  await ours.sh(`cp ${agentFolder}/ca.crt /var/lib/stolen/ca.crt`);
  const mixed = await ours.inro([
    'agent',
    'run',
    '--state',
    '/var/lib/stolen',
    '--mount',
    '/run/stolen',
    '--socket',
    '/run/stolen.sock',
  ]);
  refused(t, mixed, 1, /certificate/);
  t.notRegex((await ours.sh('cat /proc/self/mountinfo')).stdout, /stolen/);

  // 3. Their certificate on the wire, by a client that believes our root: no better than none.
  const [rootPem, certificatePem, keyPem] = (await Promise.all(
    [
      ours.outside(`${agentFolder}/ca.crt`),
      theirs.outside(`${agentFolder}/node.crt`),
      theirs.outside(`${agentFolder}/node.key`),
    ].map((path) => readFile(path, 'utf8')),
  )) as [string, string, string];
  await over(
    t,
    connectTls(manager.address, nodeCredentials({ rootPem, certificatePem, keyPem })),
    async (connection) => {
      await refusesAsync(
        t,
        attach(connection),
        'unauthenticated',
        /needs a certificate of this cluster, and none was accepted/,
      );
    },
  );
  t.deepEqual(
    (await ours.json<{ status: string }[]>(['node', 'ls'])).map((node) => node.status),
    ['ready'],
  );
});

scenario('the TLS port: what a caller without a certificate, and a worker, may not do', async (t) => {
  const host = await Host.of(t);
  const { manager } = await host.startCluster();
  const [rootPem, certificatePem, keyPem] = (await Promise.all(
    ['ca.crt', 'node.crt', 'node.key'].map((file) =>
      readFile(host.outside(`${agentFolder}/${file}`), 'utf8'),
    ),
  )) as [string, string, string];
  const nobody = (): Connection => connectTls(manager.address, rootCredentials(rootPem));
  const worker = (): Connection =>
    connectTls(manager.address, nodeCredentials({ rootPem, certificatePem, keyPem }));

  await over(t, nobody(), async (connection) => {
    t.is((await call(connection, Enrollment, 'getRoot', {})).rootPem, rootPem, 'the root is for everybody');
    await refusesAsync(
      t,
      attach(connection),
      'unauthenticated',
      /needs a certificate of this cluster, and none was accepted/,
    );
    await t.throwsAsync(call(connection, Control, 'listSecrets', {}), { instanceOf: InroError });
    await t.throwsAsync(call(connection, Control, 'getJoinToken', { role: 'worker' }), {
      instanceOf: InroError,
    });
    const request = { csrPem: 'x', token: 'INRO-JOIN-1-x' };
    await refusesAsync(t, call(connection, Enrollment, 'issueCertificate', request), 'bad_token');
  });
  await over(t, worker(), async (connection) => {
    for (const name of ['listSecrets', 'listNodes', 'getCluster'] as const) {
      await t.throwsAsync(call(connection, Control, name, {}), { instanceOf: InroError });
    }
  });
  await alive(t, host);
});

scenario('the TLS port: operators who come there are told where to go', async (t) => {
  const host = await Host.of(t);
  const manager = await host.startManager();
  await over(t, connectTls(manager.address, unverifiedCredentials()), async (connection) => {
    const error = await t.throwsAsync(call(connection, Control, 'listSecrets', {}), {
      instanceOf: InroError,
    });
    t.regex(
      error?.remedy ?? '',
      /^it is missing, expired or of another cluster: name an identity of this cluster with --identity FILE/,
    );
  });
});

scenario('frames over the limit, and bytes that are no frames', async (t) => {
  const host = await Host.of(t);
  const { manager } = await host.startCluster();
  const large = new Uint8Array(2 * mebibyte);
  await over(t, connectTls(manager.address, unverifiedCredentials()), async (connection) => {
    const request = { csrPem: 'x'.repeat(large.length), token: 'x' };
    await refusesAsync(
      t,
      call(connection, Enrollment, 'issueCertificate', request),
      'too_large',
      /larger than max/,
    );
    t.truthy(await call(connection, Enrollment, 'getRoot', {}), 'the same connection goes on');
  });
  await over(t, connectUnix(host.outside('/run/inro/manager.sock'), 'the manager'), async (connection) => {
    const request = { id: 'a'.repeat(25), name: 'large', ciphertext: large };
    await refusesAsync(t, call(connection, Control, 'createSecret', request), 'too_large', /larger than max/);
    t.truthy(await call(connection, Control, 'getCluster', {}));
  });
  const [name, port] = manager.address.split(':');
  const noise = `head -c 100000 /dev/urandom > /dev/tcp/${name}/${port}; echo 'GET / HTTP/1.1' > /dev/tcp/${name}/${port}; true`;
  await host.run(['bash', '-c', noise]);
  await alive(t, host);
});

async function over(
  t: ExecutionContext,
  connection: Connection,
  use: (connection: Connection) => Promise<void>,
): Promise<void> {
  t.teardown(() => connection.close());
  await use(connection);
  connection.close();
}

/** Opens the agents' stream and waits for its first message. */
async function attach(connection: Connection): Promise<unknown> {
  const channel = openStream(connection, Dispatcher, 'attach');
  try {
    for await (const message of channel.messages) return message;
    return undefined;
  } finally {
    channel.close();
  }
}

/** Manager and agent go on as before. */
async function alive(t: ExecutionContext, host: Host): Promise<void> {
  await host.ask(['secret', 'create', 'alive', '-'], { stdin: 'yes' });
  await host.ask(['service', 'create', '--name', 'alive', '--secret', 'alive']);
  await eventually('the value', async () => (await host.read('/run/inro/secrets/alive/alive')) === 'yes');
  t.pass();
}
