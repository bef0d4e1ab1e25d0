/** A configuration file is taken only from where nobody else can have written it, and refused with what to do. */
import { chmod, chown, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { maxConfigBytes } from '../../src/config/file.js';
import { readAgentConfig, readManagerConfig } from '../../src/config/read.js';
import type { InroError } from '../../src/model/error.js';
import { run } from '../support/inro.js';

async function folder(t: ExecutionContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'inro-config-'));
  t.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

async function file(t: ExecutionContext, content: string | Uint8Array, mode = 0o644): Promise<string> {
  const path = join(await folder(t), 'agent.yaml');
  await writeFile(path, content);
  await chmod(path, mode);
  return path;
}

function refuses(t: ExecutionContext, path: string, message: RegExp, remedy: RegExp): void {
  const error = t.throws<InroError>(() => readAgentConfig(path), { message });
  t.is(error?.code, 'bad_config');
  t.true(error?.message.includes(path));
  t.regex(error?.remedy ?? '', remedy);
}

test('a file of this user is read, through a link too', async (t) => {
  const path = await file(t, 'state: /s\n', 0o600);
  t.deepEqual(readAgentConfig(path), { state: '/s' });
  await symlink(path, `${path}.link`);
  t.deepEqual(readAgentConfig(`${path}.link`), { state: '/s' });
});

test('what is read again is what is there now', async (t) => {
  const path = await file(t, 'state: /s\n');
  t.deepEqual(readManagerConfig(path), { state: '/s' });
  await writeFile(path, 'state: /t\n');
  t.deepEqual(readManagerConfig(path), { state: '/t' });
});

test('only the usual file may be missing', async (t) => {
  const path = join(await folder(t), 'nowhere.yaml');
  t.deepEqual(readAgentConfig(path, true), {});
  t.deepEqual(readManagerConfig(path, true), {});
  refuses(t, path, /is not there$/, /--config FILE/);
});

test('a usual file that is broken is not passed over', async (t) => {
  const path = await file(t, 'statee: /s\n');
  t.throws(() => readAgentConfig(path, true), { message: /unknown key 'statee'/ });
});

test('a folder', async (t) => {
  refuses(t, await folder(t), /is a folder, not a file$/, /--config FILE/);
});

test('a pipe keeps nobody waiting', async (t) => {
  const path = join(await folder(t), 'pipe');
  await run(['mkfifo', path]);
  refuses(t, path, /is no regular file$/, /regular file/);
});

test('a device', (t) => refuses(t, '/dev/zero', /is no regular file$/, /regular file/));

test('a socket', async (t) => {
  const path = join(await folder(t), 'socket');
  const server = createServer().listen(path);
  await new Promise((resolve) => server.once('listening', resolve));
  t.teardown(() => server.close());
  refuses(t, path, /cannot be opened: ENXIO/, /--config FILE/);
});

test('a path through a file', async (t) => {
  refuses(t, join(await file(t, ''), 'agent.yaml'), /cannot be opened: ENOTDIR/, /--config FILE/);
});

test('a file that everybody may write', async (t) => {
  refuses(t, await file(t, 'state: /s\n', 0o666), /can be written by every user$/, /chmod o-w/);
});

test('a file at the limit is read, one byte more is refused', async (t) => {
  const text = 'state: /s\n#';
  const path = await file(t, text.padEnd(maxConfigBytes, 'x'));
  t.deepEqual(readAgentConfig(path), { state: '/s' });
  await writeFile(path, text.padEnd(maxConfigBytes + 1, 'x'));
  refuses(t, path, /is larger than 64 KiB$/, /right file/);
});

test('a file that says it is empty, and is not', (t) => {
  // Of /proc every size is 0; this one is no KEY: VALUE in our words.
  refuses(t, '/proc/self/status', /unknown key|is not right|does not say/, /./);
});

test('bytes that are no text', async (t) => {
  refuses(t, await file(t, Uint8Array.of(0x73, 0xff, 0xfe)), /is not UTF-8 text$/, /plain text/);
});

const asRoot = process.getuid?.() === 0 ? test : test.skip;

asRoot('a file of another user', async (t) => {
  const path = await file(t, 'state: /s\n');
  await chown(path, 61_001, 61_001);
  refuses(t, path, /belongs to another user \(uid 61001\), who could change it$/, /chown 0 /);
});

asRoot('an ordinary user: what root gives is taken, what he may not read is said', async (t) => {
  const parent = await folder(t);
  await chmod(parent, 0o755);
  await mkdir(join(parent, 'closed'), { mode: 0o700 });
  await writeFile(join(parent, 'open.yaml'), 'state: /s\n', { mode: 0o644 });
  await writeFile(join(parent, 'closed.yaml'), '', { mode: 0o600 });
  await writeFile(join(parent, 'closed/agent.yaml'), '');
  const script = `
    import { readAgentConfig } from ${JSON.stringify(new URL('../../src/config/read.js', import.meta.url).href)};
    process.setgid(61001); process.setuid(61001);
    for (const name of ['open.yaml', 'closed.yaml', 'closed/agent.yaml'])
      try { console.log(JSON.stringify(readAgentConfig(process.argv[1] + '/' + name, true))) }
      catch (error) { console.log(error.code, error.message.replace(process.argv[1], '~')) }`;
  const { stdout, stderr } = await run([process.execPath, '--input-type=module', '-e', script, parent]);
  t.is(
    stdout,
    '{"state":"/s"}\n' +
      'bad_config ~/closed.yaml may not be read by this user\n' +
      'bad_config ~/closed/agent.yaml may not be read by this user\n',
    stderr,
  );
});
