/** A cluster whose CA was brought along, over real TLS: both sides verify the whole chain, and nothing is read from the root's names. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { loadIdentity } from '../../src/agent/identity.js';
import { joinCluster } from '../../src/agent/join.js';
import { askForRenewal } from '../../src/agent/renew.js';
import { readChain } from '../../src/pki/chain.js';
import { parseJoinToken } from '../../src/pki/join_token.js';
import { findOpenssl } from '../pki/openssl.js';
import { keys, opensslCa, opensslIntermediate, type OpensslCa } from '../support/openssl_ca.js';
import { realManager, type RealManager } from '../support/real_manager.js';
import { refusesAsync } from '../support/refuses.js';

const withOpenssl = findOpenssl() === undefined ? test.skip : test;

function temporary(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'inro-brought-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function filesOf(folder: string, { certPem, keyPem }: OpensslCa) {
  const files = { certificatePath: join(folder, 'their.crt'), keyPath: join(folder, 'their.key') };
  writeFileSync(files.certificatePath, certPem);
  writeFileSync(files.keyPath, keyPem);
  return files;
}

async function joined(t: ExecutionContext, manager: RealManager, stateFolder = join(temporary(t), 'agent')) {
  const { running, clock } = manager;
  const token = parseJoinToken(await running.joinToken());
  const { nodeId } = await joinCluster({ token, manager: running.address, stateFolder, clock });
  return { nodeId, stateFolder, identity: loadIdentity(stateFolder, clock.now()) };
}

withOpenssl(
  'what stands below the root is shown with its end, and that is said when it is near',
  async (t) => {
    const { intermediate } = opensslIntermediate(t);
    const manager = await realManager(t, undefined, filesOf(temporary(t), intermediate));
    const [below] = (await manager.operate('getCa', {})).intermediates;
    t.is(below?.subject, 'O=Example Corp, OU=Secrets, CN=Example inro CA');
    t.is(Number(below?.expiresMs), readChain(intermediate.certPem)[0].notAfterMs);
    const said = () => manager.logged.filter(({ msg }) => /nears its end/.test(String(msg))).length;
    t.is(said(), 0);
    const dayMs = 86_400_000;
    manager.clock.setWall(Number(below?.expiresMs) - 179 * dayMs);
    await manager.clock.jump(dayMs);
    t.is(said(), 1);
    await manager.clock.jump(dayMs);
    t.is(said(), 2, 'each day');
  },
);

const kinds = { p256: keys.p256, rsa2048: keys.rsa2048, ed25519: keys.ed25519, p384: keys.p384 };
for (const [kind, key] of Object.entries(kinds)) {
  withOpenssl(`hosts join, attach, renew and join again below an intermediate with ${kind}`, async (t) => {
    const { intermediate, root } = opensslIntermediate(t, { root: key, below: key });
    const ca = filesOf(temporary(t), intermediate);
    const manager = await realManager(t, undefined, ca);
    const { identity, stateFolder } = await joined(t, manager);
    t.is(identity.clusterId, manager.running.clusterId);
    t.is(readFileSync(join(stateFolder, 'ca.crt'), 'utf8'), root.certPem, 'what it trusts is the root');
    t.is(readChain(identity.certificatePem).length, 2, 'what it shows goes up to below the root');
    const pair = await askForRenewal(identity, manager.running.address, () => manager.clock.now());
    t.is(readChain(pair.certificatePem).length, 2);
    const node = manager.attach({
      nodeId: identity.nodeId,
      certPem: pair.certificatePem,
      keyPem: pair.keyPem,
    });
    t.truthy(await node.begin());

    const later = await manager.restarted(async () => rmSync(ca.keyPath));
    t.is(later.running.clusterId, manager.running.clusterId);
    const token = parseJoinToken(await later.running.joinToken());
    const options = { token, manager: later.running.address, stateFolder, clock: later.clock };
    const again = await joinCluster({ ...options, again: true });
    t.true(again.isSame, 'its former certificate was proved through the chain');
  });
}

withOpenssl(
  'a cluster is founded below a root of another name, and two below one root stay apart',
  async (t) => {
    const root = opensslCa(t, { name: '/C=JP/O=Example/CN=Example Root' });
    const ca = filesOf(temporary(t), root);
    const [ours, theirs] = [await realManager(t, undefined, ca), await realManager(t, undefined, ca)];
    t.not(ours.running.clusterId, theirs.running.clusterId);
    const { identity } = await joined(t, ours);
    t.is(readChain(identity.certificatePem).length, 1);
    await refusesAsync(
      t,
      askForRenewal(identity, theirs.running.address, () => theirs.clock.now()),
      'foreign_cluster',
    );
    const token = parseJoinToken(await ours.running.joinToken());
    const stateFolder = join(temporary(t), 'agent');
    const options = { token, manager: theirs.running.address, stateFolder, clock: ours.clock };
    await refusesAsync(t, joinCluster(options), 'bad_token');
  },
);

withOpenssl('a later start with another CA is refused, and the cluster stays as it was', async (t) => {
  const [first, second] = [opensslCa(t, { name: '/CN=One' }), opensslCa(t, { name: '/CN=Two' })];
  const ca = filesOf(temporary(t), first);
  const manager = await realManager(t, undefined, ca);
  const was = readFileSync(join(manager.folder, 'ca.crt'), 'utf8');
  await manager.stop();
  filesOf(join(ca.certificatePath, '..'), second);
  const error = await refusesAsync(
    t,
    realManager(t, manager.folder, ca),
    'bad_input',
    /is not the CA that cluster/,
  );
  t.regex(error.remedy ?? '', /leave --ca-cert and --ca-key out/);
  t.is(readFileSync(join(manager.folder, 'ca.crt'), 'utf8'), was);
  await t.notThrowsAsync(realManager(t, manager.folder));
});

withOpenssl('a CA that cannot be used founds nothing, and the next start may have a good one', async (t) => {
  const folder = temporary(t);
  const ca = filesOf(folder, opensslCa(t, { name: '/CN=Short', days: 100 }));
  await refusesAsync(t, realManager(t, undefined, ca), 'bad_certificate', /less than a year/);
  rmSync(ca.keyPath);
  await refusesAsync(t, realManager(t, undefined, ca), 'bad_input', /their.key is not there/);
});
