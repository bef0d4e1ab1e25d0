/** What a host has of its cluster: state folder, key, certificate, managers. */
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { loadIdentity, saveIdentity, saveKey } from '../../src/agent/identity.js';
import { certificate } from '../../src/doctor/certificate.js';
import { managers } from '../../src/doctor/managers.js';
import { diskSpace, nodeKey, spaceLeft, stateFolder } from '../../src/doctor/state.js';
import { issuedMs } from '../../src/pki/renewal_point.js';
import { fakeCluster } from '../support/fake_authority.js';
import { FakeClock, settle } from '../support/fake_clock.js';

const cluster = fakeCluster();
const user = process.geteuid?.() ?? 0;

async function joined(t: ExecutionContext): Promise<string> {
  const scratch = await mkdtemp(join(tmpdir(), 'inro-doctor-'));
  t.teardown(() => rm(scratch, { recursive: true, force: true }));
  const folder = join(scratch, 'agent');
  const worker = cluster.worker();
  saveKey(folder, worker.keyPem);
  saveIdentity(folder, {
    rootPem: cluster.rootPem,
    certificatePem: worker.certPem,
    managers: ['10.0.0.1:4747'],
  });
  return folder;
}

test('a state folder as joining makes it', async (t) => {
  const folder = await joined(t);
  t.like(stateFolder(folder, user), { state: 'ok' });
  t.like(nodeKey(folder, user), { state: 'ok' });
  t.like(await diskSpace(folder), { name: 'disk space' });
});

test('a state folder that is open, another user’s, a link, a file, or not there', async (t) => {
  const folder = await joined(t);
  t.like(stateFolder(folder, user + 1), { state: 'fail' });
  t.regex(stateFolder(folder, user + 1).detail, /belongs to another user \(uid [0-9]+\)$/);
  await chmod(folder, 0o750);
  t.like(stateFolder(folder, user), { state: 'fail' });
  t.regex(stateFolder(folder, user).remedy ?? '', /chmod 700/);
  await symlink(folder, `${folder}.link`);
  t.like(stateFolder(`${folder}.link`, user), { state: 'note' });
  await writeFile(`${folder}.file`, '');
  t.like(stateFolder(`${folder}.file`, user), { state: 'fail' });
  t.like(stateFolder(`${folder}.file/agent`, user), { state: 'fail' });
  t.like(stateFolder(`${folder}.none`, user), { state: 'note' });
  t.like(await diskSpace(`${folder}.none/below/that`), { name: 'disk space' });
});

test('a key that others can read, is another user’s, no file, or not there', async (t) => {
  const folder = await joined(t);
  const path = join(folder, 'node.key');
  await chmod(path, 0o640);
  t.like(nodeKey(folder, user), { state: 'fail' });
  t.regex(nodeKey(folder, user).detail, /mode 0640/);
  t.like(nodeKey(folder, user + 1), { state: 'fail' });
  await rm(path);
  t.like(nodeKey(folder, user), { state: 'note' });
  await mkdir(path);
  t.like(nodeKey(folder, user), { state: 'fail' });
});

test('room on the disk', (t) => {
  t.is(spaceLeft(0, '/').state, 'fail');
  t.is(spaceLeft(2 ** 20 - 1, '/').state, 'fail');
  t.is(spaceLeft(2 ** 20, '/').state, 'warn');
  t.is(spaceLeft(2 ** 24, '/').state, 'ok');
});

test('a certificate is good until the last fifth of its life', async (t) => {
  const identity = loadIdentity(await joined(t), cluster.now);
  const { notAfterMs } = identity.certificate;
  const turn = notAfterMs - (notAfterMs - issuedMs(identity.certificate)) / 5;
  t.like(certificate(identity, turn - 1), { state: 'ok' });
  const late = certificate(identity, turn);
  t.is(late.state, 'warn');
  t.regex(
    late.detail,
    new RegExp(`^node ${identity.nodeId} of cluster ${identity.clusterId}, until .*Z \\([0-9]+ days\\)$`),
  );
  t.regex(late.remedy ?? '', /the agent renews it by itself and has not yet.*inro agent join --token -/);
});

test('no manager is known', async (t) => {
  t.like(await managers([], new FakeClock()), { state: 'note' });
});

test('managers that answer, and some that do not', async (t) => {
  const clock = new FakeClock();
  const knock = (address: string): Promise<string> =>
    Promise.resolve(address === 'a:1' ? '' : 'ECONNREFUSED');
  t.like(await managers(['a:1'], clock, knock), { state: 'ok', detail: '1 of 1 can be reached: a:1' });
  t.like(await managers(['b:1', 'a:1'], clock, knock), {
    state: 'warn',
    detail: '1 of 2 can be reached; b:1: ECONNREFUSED',
  });
  t.like(await managers(['b:1'], clock, knock), { state: 'fail' });
});

test('those that say nothing are all given up at the same moment', async (t) => {
  const clock = new FakeClock();
  const asked: string[] = [];
  const knock = (address: string): Promise<string> => {
    asked.push(address);
    return address === 'a:1' ? Promise.resolve('') : new Promise(() => undefined);
  };
  const found = managers(['b:1', 'c:1', 'a:1'], clock, knock);
  await settle();
  t.deepEqual(asked, ['b:1', 'c:1', 'a:1'], 'in parallel');
  await clock.jump(3_000);
  t.like(await found, {
    state: 'warn',
    detail: '1 of 3 can be reached; b:1: no answer within 3 s; c:1: no answer within 3 s',
  });
});

test('over TCP', async (t) => {
  const server = net.createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as net.AddressInfo;
  t.like(await managers([`127.0.0.1:${port}`], new FakeClock()), { state: 'ok' });
  await new Promise((resolve) => server.close(resolve));
  t.like(await managers([`127.0.0.1:${port}`], new FakeClock()), {
    state: 'fail',
    detail: `0 of 1 can be reached; 127.0.0.1:${port}: ECONNREFUSED`,
  });
});
