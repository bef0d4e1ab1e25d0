/** A cluster below an intermediate CA that was brought along, with the real programs: join, read, write, restart, enrol again. */
import { X509Certificate } from 'node:crypto';
import { findOpenssl } from '../pki/openssl.js';
import { Host } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { opensslIntermediate } from '../support/openssl_ca.js';
import { eventually, refused } from '../support/inro.js';

const file = '/run/inro/secrets/web/key';
const files = { 'ca-cert': '/var/lib/inro/theirs.pem', 'ca-key': '/var/lib/inro/theirs.key' };

if (findOpenssl() !== undefined) {
  labScenario('1: a node joins below it, has its secrets, and stays that node', async (t) => {
    const host = await Host.of(t);
    const { root, intermediate } = opensslIntermediate(t);
    await host.run(['mkdir', '-p', '/var/lib/inro']);
    const put = (path: string, text: string) => host.run(['sh', '-c', `cat > ${path}`], { stdin: text });
    await put(files['ca-cert'], intermediate.certPem);
    await put(files['ca-key'], intermediate.keyPem);

    const manager = await host.startManager(files);
    const nodeId = await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
    const agent = await host.startAgent();
    await host.ask(['secret', 'create', 'key', '-'], { stdin: 'first' });
    await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
    t.is(await host.read(file), 'first');

    const { rootFingerprint } = await host.json<{ rootFingerprint: string }>(['ca', 'inspect']);
    const theirs = new X509Certificate(root.certPem).fingerprint256.replaceAll(':', '').toLowerCase();
    t.is(rootFingerprint, theirs, 'what everybody trusts is their root');

    const identity = '/var/lib/inro/alice.pem';
    await host.ask(['operator', 'create', 'alice', '--role', 'admin', '--out', identity]);
    const asAlice = ['--manager', manager.address, '--identity', identity];
    t.is((await host.json<unknown[]>(['node', 'ls', ...asAlice])).length, 1);
    await host.ask(['secret', 'create', 'other', '-', ...asAlice], {
      stdin: 'sealed below the intermediate',
    });
    await host.ask(['operator', 'renew', '--identity', identity, '--manager', manager.address]);
    t.is((await host.json<unknown[]>(['node', 'ls', ...asAlice])).length, 1);

    await manager.stop();
    await host.run(['rm', files['ca-key']]);
    const again = await host.startManager({ ...files, listen: manager.address });
    await agent.printed(/"session with the manager"/);
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'second' });
    t.is(await host.read(file), 'second');

    await agent.stop();
    const token = await host.ask(['token', 'show', 'worker']);
    const args = ['agent', 'join', '--again', '--token', '-', '--manager', manager.address];
    t.is((await host.json<{ nodeId: string }>(args, { stdin: token })).nodeId, nodeId);
    await host.startAgent();
    await eventually('the file', async () => (await host.read(file)) === 'second');
    await again.stop();

    const other = opensslIntermediate(t).intermediate;
    await put(files['ca-cert'], other.certPem);
    const run = ['manager', 'run', '--state', '/var/lib/inro/manager', '--listen', manager.address];
    const given = ['--ca-cert', files['ca-cert'], '--ca-key', files['ca-key']];
    refused(t, await host.inro([...run, ...given]), 2, /is not the CA that cluster .* was founded with/);
  });
}
