/** A cluster whose CA is a real cfssl, at two URLs, set up as docs/external-ca.md says, with the real programs. */
import { readFileSync } from 'node:fs';
import { Host } from '../support/host.js';
import { eventually, refused } from '../support/inro.js';
import { labScenario } from '../support/lab.js';
import { opensslCa, opensslIntermediate } from '../support/openssl_ca.js';

const page = readFileSync(new URL('../../../docs/external-ca.md', import.meta.url), 'utf8');
const config = /```json\n([^]*?)```/.exec(page)?.[1] ?? '';
const folder = '/var/lib/inro/ca';
const file = '/run/inro/secrets/web/key';
const leaf = ['basicConstraints=critical,CA:FALSE', 'keyUsage=critical,digitalSignature'];

labScenario('1: hosts join, read, renew and come back through one of two, and with none go on', async (t) => {
  const host = await Host.of(t, { ownNetwork: true });
  const { root, intermediate } = opensslIntermediate(t);
  const clients = opensslCa(t, { name: '/CN=Clients' });
  const server = opensslCa(t, {
    name: '/CN=cfssl',
    by: root,
    extensions: [...leaf, 'extendedKeyUsage=serverAuth', 'subjectAltName=IP:127.0.0.1'],
  });
  const client = opensslCa(t, {
    name: '/CN=manager',
    by: clients,
    extensions: [...leaf, 'extendedKeyUsage=clientAuth'],
  });
  const files: Record<string, string> = {
    'ca.pem': intermediate.certPem,
    'ca.crt': intermediate.certPem.split(/(?<=END CERTIFICATE-----\n)/)[0] ?? '',
    'ca.key': intermediate.keyPem,
    'root.pem': root.certPem,
    'server.crt': server.certPem,
    'server.key': server.keyPem,
    'clients.crt': clients.certPem,
    'client.crt': client.certPem,
    'client.key': client.keyPem,
    'cfssl.json': config,
    'bare.json': JSON.stringify({
      signing: { default: { expiry: '2160h', usages: ['digital signature', 'client auth'] } },
    }),
  };
  await host.run(['mkdir', '-p', folder]);
  for (const [name, text] of Object.entries(files))
    await host.run(['sh', '-c', `cat > ${folder}/${name}`], { stdin: text });

  const serve = async (port: number, json = 'cfssl.json') => {
    const args = ['-address=127.0.0.1', `-port=${port}`, '-ca=ca.crt', '-ca-key=ca.key', `-config=${json}`];
    const tls = ['-tls-cert=server.crt', '-tls-key=server.key', '-mutual-tls-ca=clients.crt'];
    const daemon = host.spawn(['cfssl', 'serve', ...args, ...tls], { cwd: folder });
    await daemon.printed(/[Nn]ow listening/);
    return daemon;
  };
  const spec = (port: number) =>
    `protocol=cfssl,url=https://127.0.0.1:${port},cacert=${folder}/ca.pem,cert=${folder}/client.crt,key=${folder}/client.key`;
  const [one, two] = [8881, 8882].map(spec) as [string, string];
  const run = ['manager', 'run', '--state', '/var/lib/inro/manager', '--listen', '127.0.0.1:4747'];

  // What is not right is said before anything is founded.
  refused(
    t,
    await host.inro([...run, '--external-ca', one]),
    1,
    /signs nothing: https:\/\/127\.0\.0\.1:8881.*ECONNREFUSED/,
  );
  const bare = await serve(8881, 'bare.json');
  refused(
    t,
    await host.inro([...run, '--external-ca', one]),
    1,
    /needs a profile inro-manager with the usages "digital signature", "server auth"/,
  );
  const noClient = one.replace(/,cert=.*/, '');
  refused(
    t,
    await host.inro([...run, '--external-ca', noClient]),
    1,
    /signs nothing: .*bad certificate|certificate required/i,
  );
  await bare.kill9();

  const first = await serve(8881);
  const second = await serve(8882);
  const config2 = `state: /var/lib/inro/manager\nlisten: 127.0.0.1:4747\nexternalCa:\n  - ${one}\n  - ${two}\n`;
  await host.run(['sh', '-c', 'mkdir -p /var/lib/inro && cat > /var/lib/inro/manager.yaml'], {
    stdin: config2,
  });
  const start = async () => {
    const daemon = host.start(['manager', 'run', '--config', '/var/lib/inro/manager.yaml']);
    await daemon.printed(/"manager is ready"/);
    return daemon;
  };
  const manager = await start();
  const address = '127.0.0.1:4747';
  const token = () => host.ask(['token', 'show', 'worker']);
  const nodeId = await host.join(await token(), address);
  const agent = await host.startAgent();
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'first' });
  await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
  t.is(await host.read(file), 'first');

  // openssl says the same of what cfssl has signed.
  for (const [name, purpose] of [
    ['/var/lib/inro/agent/node.crt', 'sslclient'],
    ['/var/lib/inro/manager/manager.crt', 'sslserver'],
  ] as const) {
    const line = `openssl verify -x509_strict -purpose ${purpose} -CAfile ${folder}/root.pem -untrusted ${folder}/ca.crt ${name}`;
    const { stdout, stderr } = await host.sh(line);
    t.regex(stdout, /: OK\n$/, stderr);
  }
  t.is((await host.sh('ls /var/lib/inro/manager/ca.key')).code, 2, 'the key is not here');

  await first.kill9();
  const identity = '/var/lib/inro/alice.pem';
  await host.ask(['operator', 'create', 'alice', '--role', 'admin', '--out', identity]);
  t.is((await host.json<unknown[]>(['node', 'ls', '--manager', address, '--identity', identity])).length, 1);
  const { external } = await host.json<{ external: { lastError: string | null }[] }>(['ca', 'inspect']);
  t.regex(external[0]?.lastError ?? '', /ECONNREFUSED/);
  t.is(external[1]?.lastError, null);
  t.regex(
    await host.ask(['ca', 'inspect']),
    /Signed by:\s+https:\/\/127\.0\.0\.1:8882\/api\/v1\/cfssl\/sign, signed /,
  );

  await agent.stop();
  const again = ['agent', 'join', '--again', '--token', '-', '--manager', address];
  t.is(
    (await host.json<{ nodeId: string }>(again, { stdin: await token() })).nodeId,
    nodeId,
    'enrolled again',
  );

  // The other one goes, too: everybody goes on, and who wants something new is told why it is not there.
  await second.kill9();
  await host.startAgent();
  await eventually('the file', async () => (await host.read(file)) === 'first');
  await manager.stop();
  await start();
  await host.ask(['secret', 'update', 'key', '-'], { stdin: 'second' });
  await eventually('the new value', async () => (await host.read(file)) === 'second');
  const join2 = ['agent', 'join', '--token', '-', '--manager', address, '--state', '/var/lib/inro/second'];
  refused(t, await host.inro(join2, { stdin: await token() }), 1, /external CA signs nothing/);
  await serve(8882);
  await host.join(await token(), address, { state: '/var/lib/inro/second' });
  t.is((await host.json<unknown[]>(['node', 'ls'])).length, 2);
  refused(t, await host.inro(['ca', 'rotate']), 1, /vouches for no other root/);
});
