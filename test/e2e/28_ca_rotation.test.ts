/** Another CA signs, while hosts work: nobody who is there notices, and who was away hears what to do. */
import { X509Certificate } from 'node:crypto';
import { Host, scenario } from '../support/host.js';
import { labScenario } from '../support/lab.js';
import { eventually, refused } from '../support/inro.js';
import { KeptAgent } from '../support/kept_agent.js';
import { opensslCa } from '../support/openssl_ca.js';
import { allRead, readSteadily } from '../support/steady_reader.js';
import { findOpenssl } from '../pki/openssl.js';

const file = '/run/inro/secrets/web/key';
const state = '/var/lib/inro/agent';

interface Ca {
  rootPem: string;
  rootFingerprint: string;
  rotation: { nodes: number; renewed: number; left: { id: string; status: string }[] } | null;
  formerRoots: { fingerprint: string }[];
  mustEnrol: { id: string }[];
  operatorsToRenew: string[];
}

const caOf = (host: Host): Promise<Ca> => host.json<Ca>(['ca', 'inspect']);

scenario(
  '1: rotated under readers, over kills; who was away enrols again and stays that node',
  async (t) => {
    const host = await Host.of(t);
    const manager = await host.startManager();
    const oldToken = await host.ask(['token', 'show', 'worker']);
    const here = await host.join(oldToken, manager.address);
    const join = (folder: string, ...more: string[]): string[] => {
      const from = ['--token', '-', '--manager', manager.address];
      return ['agent', 'join', ...more, '--state', folder, ...from];
    };
    const away = '/var/lib/inro/away';
    const { nodeId: awayId } = await host.json<{ nodeId: string }>(join(away), { stdin: oldToken });
    const identity = '/var/lib/inro/alice.pem';
    await host.ask(['operator', 'create', 'alice', '--role', 'admin', '--out', identity]);
    const asAlice = ['--manager', manager.address, '--identity', identity];
    const agent = await KeptAgent.start(host);
    await host.ask(['secret', 'create', 'key', '-'], { stdin: 'hunter2' });
    await host.ask([
      'service',
      'create',
      '--name',
      'web',
      '--secret',
      'key',
      '--constraint',
      `node.id==${here}`,
    ]);
    const readers = await readSteadily(host, file, ['hunter2']);
    const before = await caOf(host);
    t.is(before.rotation, null);
    const made = await host.ask(['token', 'create', 'worker', '--ttl', '1h']);

    const begun = await host.ask(['ca', 'rotate', '--deadline', '30m']);
    t.regex(begun, /2 nodes to be renewed; who is not until .* must enrol again/);
    t.regex(begun, /join tokens name the new root.*; 1 made to measure end with the rotation/);
    const renewed = async (): Promise<number> => (await caOf(host)).rotation?.renewed ?? -1;
    await eventually('the node that is here is renewed', async () => (await renewed()) === 1);
    await manager.kill9();
    const again = await host.startManager({ listen: manager.address });
    const during = await caOf(host);
    t.deepEqual(
      during.rotation?.left.map(({ id }) => id),
      [awayId],
    );
    t.not(during.rootFingerprint, before.rootFingerprint);
    t.deepEqual(during.operatorsToRenew, ['alice']);
    refused(t, await host.inro(['ca', 'rotate']), 1, /a rotation of the CA is under way/);
    await eventually('it is back', async () => /session with the manager/.test(agent.log.slice(-2_000)));
    await agent.killAndWait();

    // A host with the token of yesterday, and an operator with the identity of yesterday, come in.
    await host.ask(join('/var/lib/inro/third'), { stdin: oldToken });
    await host.ask(join('/var/lib/inro/fourth'), { stdin: made });
    t.is((await host.json<unknown[]>(['node', 'ls', ...asAlice])).length, 4);
    t.regex(await host.ask(['operator', 'ls']), /valid, to renew/);
    await host.ask(['operator', 'renew', ...asAlice]);
    t.deepEqual((await caOf(host)).operatorsToRenew, []);
    await host.ask(['secret', 'create', 'other', '-', ...asAlice], { stdin: 'sealed for the new root' });

    const ended = await host.ask(['ca', 'update', '--rotation-deadline', 'now']);
    t.regex(ended, new RegExp(`must enrol again.*\\n.*\\n${awayId}`));
    const after = await caOf(host);
    t.is(after.rotation, null);
    t.deepEqual(
      after.formerRoots.map(({ fingerprint }) => fingerprint),
      [before.rootFingerprint],
    );
    t.deepEqual(
      after.mustEnrol.map(({ id }) => id),
      [awayId],
    );
    t.regex(await host.ask(['node', 'ls']), new RegExp(`${awayId}.*must enrol`));
    t.is((await host.json<unknown[]>(['node', 'ls', ...asAlice])).length, 4, 'a renewed operator goes on');
    await eventually('the node trusts the new root alone', async () => {
      return (await host.read(`${state}/ca.crt`)) === after.rootPem;
    });
    allRead(t, await readers(), 'over the whole rotation');
    await agent.killAndWait();
    await host.ask(['secret', 'update', 'key', '-'], { stdin: 'hunter3' });
    await eventually('it is served', async () => (await host.sh(`cat ${file}`)).stdout === 'hunter3');
    await agent.end();

    // Who was away.
    refused(t, await host.inro(join('/var/lib/inro/fifth'), { stdin: oldToken }), 1, /has another digest/);
    refused(t, await host.inro(join('/var/lib/inro/fifth'), { stdin: made }), 1, /has another digest/);
    const late = host.start(['agent', 'run', '--state', away]);
    await late.printed(/is of a CA that is not in use any more since .*agent join --again/);
    t.is(await late.stop(), 0);
    const token = await host.ask(['token', 'show', 'worker']);
    t.is((await host.json<{ nodeId: string }>(join(away, '--again'), { stdin: token })).nodeId, awayId);
    const back = await host.startAgent({ state: away });
    t.deepEqual((await caOf(host)).mustEnrol, []);
    await back.stop();
    await again.stop();
  },
  { timeoutMs: 300_000 },
);

if (findOpenssl() !== undefined) {
  labScenario(
    '2: from a root that inro made to a CA that is brought along, and back',
    async (t) => {
      const host = await Host.of(t);
      const manager = await host.startManager();
      const first = await caOf(host);
      await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
      const agent = await host.startAgent();
      await host.ask(['secret', 'create', 'key', '-'], { stdin: 'first' });
      await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
      const root = opensslCa(t, { name: '/CN=Their root' });
      const put = async (name: string, text: string): Promise<string> => {
        await host.run(['sh', '-c', `cat > /var/lib/inro/${name}`], { stdin: text });
        return `/var/lib/inro/${name}`;
      };
      const given = async ({ certPem, keyPem }: { certPem: string; keyPem: string }): Promise<string[]> => [
        '--ca-cert',
        await put('theirs.pem', certPem),
        '--ca-key',
        await put('theirs.key', keyPem),
      ];
      const rotated = await host.ask(['ca', 'rotate', '--wait', ...(await given(root))], {
        timeoutMs: 90_000,
      });
      t.regex(rotated, /1 of 1 node renewed|the CA was rotated/);
      const second = await caOf(host);
      const theirs = new X509Certificate(root.certPem).fingerprint256.replaceAll(':', '').toLowerCase();
      t.is(second.rootFingerprint, theirs);
      t.deepEqual(
        second.formerRoots.map(({ fingerprint }) => fingerprint),
        [first.rootFingerprint],
      );
      const verified = await host.sh(
        `cd ${state} && openssl verify -x509_strict -CAfile ca.crt -untrusted node.crt node.crt`,
      );
      t.is(verified.code, 0, verified.stderr);

      const same = await host.inro(['ca', 'rotate', ...(await given(root))]);
      refused(t, same, 2, /has the key of one that this cluster has, or had/);
      const ends = opensslCa(t, { name: '/CN=Ends soon', days: 30 });
      refused(t, await host.inro(['ca', 'rotate', ...(await given(ends))]), 1, /ends in less than a year/);
      refused(
        t,
        await host.inro(['ca', 'rotate', '--ca-cert', '/var/lib/inro/theirs.pem']),
        2,
        /belong together/,
      );
      refused(t, await host.inro(['ca', 'rotate', '--deadline', '1s']), 2, /too short/);
      refused(
        t,
        await host.inro(['ca', 'update', '--rotation-deadline', 'now']),
        1,
        /no rotation of the CA is under way/,
      );

      await host.ask(['ca', 'rotate', '--wait'], { timeoutMs: 90_000 });
      t.not((await caOf(host)).rootFingerprint, theirs);
      await host.ask(['secret', 'update', 'key', '-'], { stdin: 'second' });
      t.is(await host.read(file), 'second');
      await agent.stop();
      await host.startAgent();
      await eventually('it is served', async () => (await host.sh(`cat ${file}`)).stdout === 'second');
      await manager.stop();
      await host.startManager({ listen: manager.address });
      t.is((await host.json<unknown[]>(['node', 'ls'])).length, 1);
    },
    { timeoutMs: 240_000 },
  );
}
