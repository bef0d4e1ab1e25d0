/** Programs as they are installed, and what they make of secrets: tools, languages, OpenSSL, nginx, PostgreSQL, OpenSSH. */
import { createHash } from 'node:crypto';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { Contained } from '../support/contained.js';
import { Host } from '../support/host.js';
import { eventually, type Result } from '../support/inro.js';
import { labScenario } from '../support/lab.js';
import { mappingLines, programLines } from '../support/program_lines.js';
import { servedName, tlsPair } from '../support/tls_pair.js';

const web = '/run/inro/secrets/web';
const busErrorCode = 128 + 7;

/** More than the kernel asks for at once (128 KiB), and no whole number of pages. */
const long = Array.from({ length: 4_000 }, (_, n) => `${digest(`${n}`)}\n`).join('');
const files = { small: 'hunter2', page: digest('page').repeat(64), long, mapped: long };

labScenario('tools read of a secret what they read of an ordinary file', async (t) => {
  const host = await hostWith(t, files, { mapped: 'mmap' });
  const ordinary = await ordinaryFolder(host);
  const out = join(host.folder, 'out');
  for (const f of Object.keys(files))
    for (const line of programLines) {
      const env = { LC_ALL: 'C', f, ordinary, out };
      const inFolder = async (cwd: string): Promise<object> => {
        await host.sh('rm -f $out', { env });
        const { code, stdout, stderr } = await host.sh(line, { env, cwd });
        return { code, stderr, length: stdout.length, digest: digest(stdout) };
      };
      const expected = await inFolder(ordinary);
      t.like(
        expected,
        { code: f === 'small' && line.includes('grep') ? 0 : 0, stderr: '' },
        `${line} (${f})`,
      );
      t.deepEqual(await inFolder(web), expected, `${line} (${f})`);
    }
});

labScenario(
  'a program that knows only mmap ends with SIGBUS, unless the reference says `mmap`',
  async (t) => {
    const host = await hostWith(t, files, { mapped: 'mmap' });
    const ordinary = await ordinaryFolder(host);
    for (const line of mappingLines) {
      const read = (cwd: string, f: string): Promise<Result> =>
        host.sh(`ulimit -c 0; exec ${line}`, { env: { f }, cwd });
      const refused = await read(web, 'long');
      t.is(refused.code, busErrorCode, `${line}: ${refused.stderr}`);
      t.deepEqual(await read(web, 'mapped'), await read(ordinary, 'mapped'), line);
    }
  },
);

labScenario('trees: ls, find, stat, cp, tar, rsync and diff', async (t) => {
  const host = await hostWith(t, files, { page: 'uid=33,gid=33,mode=0440', mapped: 'mmap' });
  const here = async (line: string): Promise<string> => {
    const { code, stdout, stderr } = await host.sh(line, { cwd: web, env: { LC_ALL: 'C' } });
    t.deepEqual({ code, stderr }, { code: 0, stderr: '' }, line);
    return stdout;
  };
  const names = Object.keys(files);
  for (const b of ['', 'busybox ']) {
    const list = await here(`${b}ls -lan`);
    t.regex(list, /^-r--r--r-- +1 +0 +0 +7 .* small$/m);
    t.regex(list, /^-r--r----- +1 33 +33 +4096 .* page$/m);
    t.regex(list, /^lrwxrwxrwx .* \.\.data -> \.\.1$/m);
    const found = (await here(`${b}find . -type f`)).trimEnd().split('\n');
    t.deepEqual(found.sort(), names.flatMap((name) => [`./${name}`, `./..1/${name}`]).sort());
  }
  t.is(await here('stat -c "%n %s %F %h" small'), 'small 7 regular file 1\n');
  t.regex(await here('stat -f .'), /Type: fuse/);
  for (const [n, copy] of [
    'cp -a .',
    'cp -aL .',
    'busybox cp -a .',
    'rsync -a ./',
    'rsync -aL --checksum ./',
  ].entries()) {
    const to = join(host.folder, `copy-${n}`);
    await here(`${copy} ${to} && diff -r . ${to}`);
    t.is(
      await here(`stat -c '%n %a %u %g %Y' *`),
      (await host.sh("stat -c '%n %a %u %g %Y' *", { cwd: to })).stdout,
    );
  }
  const to = join(host.folder, 'unpacked');
  const packed = await here(`tar c . | tar t`);
  for (const name of names) t.true(packed.includes(`./..1/${name}\n`));
  await here(`mkdir ${to} && tar c . | tar x -C ${to} && diff -r . ${to}`);
});

labScenario('who follows a file: a new version, and the end of the service', async (t) => {
  const host = await hostWith(t, { key: 'one\n' });
  const follow = (...command: string[]) => host.spawn(command, { cwd: web, env: { LC_ALL: 'C' } });
  const byName = follow('tail', '-F', 'key');
  const byNameToo = follow('busybox', 'tail', '-F', 'key');
  const byDescriptor = follow('tail', '-f', 'key');
  const byDescriptorToo = follow('busybox', 'tail', '-f', 'key');
  const tails = [byName, byNameToo, byDescriptor, byDescriptorToo];
  for (const tail of tails) await tail.printed(/one/);

  await host.ask(['secret', 'update', 'key', '-'], { stdin: 'longer\n' });
  for (const tail of [byName, byNameToo]) {
    await tail.printed(/key'? has been replaced/);
    await tail.printed(/one\nlonger\n/);
  }
  await byDescriptorToo.printed(/read error: Stale file handle/);
  t.is(byDescriptor.stdout + byDescriptor.stderr, 'one\n', 'it sees the old size, and waits for ever');

  await host.ask(['service', 'rm', 'web']);
  await byName.printed(/key' has become inaccessible: No such file or directory/);
  for (const tail of tails) t.true(tail.running);
});

labScenario('who watches a file: inotify once nobody has it open any more, or stat', async (t) => {
  const host = await hostWith(t, { key: 'one', held: 'one', polled: 'one' });
  const watcher = host.spawn(['node', '-e', watching], { cwd: web });
  await watcher.printed(/watching/);
  const reader = host.spawn(['sh', '-c', 'exec 3< held; echo opened; read closed'], {
    cwd: web,
    talks: true,
  });
  await reader.printed(/opened/);
  for (const name of ['held', 'key', 'polled'])
    await host.ask(['secret', 'update', name, '-'], { stdin: 'longer' });
  await watcher.printed(/watch key rename/);
  await watcher.printed(/watchFile polled 6/);
  t.false(watcher.stdout.includes('watch held '), 'it is still open');
  reader.say('');
  await watcher.printed(/watch held rename/);
  t.false(watcher.stdout.includes('watch . '), 'of the directory nothing is heard');
});

labScenario('OpenSSL: a key and a certificate for its commands and its server', async (t) => {
  const host = await hostWith(t, {});
  const { key, certificate } = await tlsPair(host, 'one');
  await publish(host, { 'tls.key': key, 'tls.crt': certificate }, { 'tls.key': 'mode=0400' });
  const ask = async (line: string): Promise<string> => {
    const { code, stdout, stderr } = await host.sh(line, { cwd: web });
    t.is(code, 0, `${line}: ${stderr}`);
    return stdout;
  };
  t.is(await ask('openssl pkey -in tls.key -pubout'), await ask('openssl x509 -in tls.crt -noout -pubkey'));
  t.is(await ask('openssl pkey -in tls.key'), key);
  t.regex(
    await ask('openssl req -new -key tls.key -subj /CN=asked | openssl req -noout -verify -subject 2>&1'),
    /verify OK[^]*CN = asked/,
  );
  const serve = `openssl s_server -accept 127.0.0.1:4433 -cert tls.crt -key tls.key -www`;
  await host.spawn(serve.split(' '), { cwd: web }).printed(/ACCEPT/);
  t.is(await servedName(host, 4433), 'one');
  t.regex(await ask('curl -sS --cacert tls.crt https://127.0.0.1:4433/'), /Cipher/);
});

labScenario('nginx: a new pair for a reload, and files that it hands out', async (t) => {
  const host = await hostWith(t, { page: files.page, mapped: long }, { mapped: 'mmap' });
  const [one, two, three] = [
    await tlsPair(host, 'one'),
    await tlsPair(host, 'two'),
    await tlsPair(host, 'three'),
  ];
  const rights = { key: 'target=tls.key,mode=0400', crt: 'target=tls.crt' };
  await publish(host, { key: one.key, crt: one.certificate }, rights, 'tls');
  // The workers are not root, and the mount's root is closed to them.
  await host.sh(`mkdir /run/nginx /run/files && mount --bind ${web} /run/files`);
  await host.sh('cat > /run/nginx.conf', { stdin: nginxConfig });
  const servers = await Contained.on(host);
  const nginx = (words = '') => servers.sh(`nginx -c /run/nginx.conf ${words}`);

  t.is((await nginx()).code, 0);
  t.is(await servedName(host, 443), 'one');
  const get = (path: string) => host.sh(`curl -sS http://127.0.0.1/${path}`);
  for (const path of ['read/page', 'read/mapped', 'sendfile/mapped'])
    t.is((await get(path)).stdout, path.endsWith('page') ? files.page : long, path);
  const cut = await get('sendfile/page');
  t.is(cut.code, 18, 'it does not fall back to read(2): headers, and nothing after them');
  t.is(cut.stdout, '');

  await host.ask(['secret', 'update', 'key', '-'], { stdin: two.key });
  const half = await nginx('-s reload');
  t.is(half.code, 1);
  t.regex(half.stderr, /key values mismatch/);
  t.is(await servedName(host, 443), 'one', 'of a pair, half of which has changed, nothing is taken');
  await host.ask(['secret', 'update', 'crt', '-'], { stdin: two.certificate });
  t.is((await nginx('-s reload')).code, 0);
  await eventually('the second certificate', async () => (await servedName(host, 443)) === 'two');

  // As one step: other secrets under the same names.
  await createSecrets(host, { key3: three.key, crt3: three.certificate });
  const gone = ['key', 'crt'].flatMap((name) => ['--secret-rm', name]);
  const come = ['key', 'crt'] as const;
  const added = come.flatMap((name) => ['--secret-add', `source=${name}3,${rights[name]}`]);
  await host.ask(['service', 'update', ...gone, ...added, 'tls']);
  t.is((await nginx('-s reload')).code, 0);
  await eventually('the third certificate', async () => (await servedName(host, 443)) === 'three');
  await host.sh('umount /run/files');
});

labScenario(
  'PostgreSQL, which is strict on who may read: its password, its key, a client’s .pgpass',
  async (t) => {
    const host = await hostWith(t, {});
    const [one, two] = [await tlsPair(host, 'one'), await tlsPair(host, 'two')];
    const owner = 'uid=postgres,gid=postgres';
    const values = {
      password: 's3cret',
      key: one.key,
      crt: one.certificate,
      pgpass: '127.0.0.1:*:*:*:s3cret\n',
    };
    const rights = { password: `${owner},mode=0400`, key: `${owner},mode=0600`, pgpass: 'mode=0600' };
    await publish(host, values, rights);
    await host.ask(['service', 'create', '--name', 'open', '--secret', 'key', '--secret', 'pgpass']);
    // The server is not root, and the mount's root is closed to it. It wants to know its own name.
    await host.sh(`
    install -m 644 /etc/passwd /run/passwd && mount --bind /run/passwd /etc/passwd
    install -d -o postgres /run/pg
    for name in web open; do mkdir /run/pg/$name && mount --bind /run/inro/secrets/$name /run/pg/$name; done`);
    const servers = await Contained.on(host);
    const become = ['setpriv', '--reuid', 'postgres', '--regid', 'postgres', '--init-groups'];
    const postgres = (line: string) =>
      servers.sh(`PATH=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1):$PATH; ${line}`, {
        through: become,
        cwd: '/run/pg',
      });
    const start = (key: string) => {
      const settings = { ssl: 'on', ssl_cert_file: '/run/pg/web/crt', ssl_key_file: key, fsync: 'off' };
      const words = Object.entries(settings).map(([name, value]) => `-c ${name}=${value}`);
      return postgres(`pg_ctl start -D data -w -l log -o "-h 127.0.0.1 -k /run/pg ${words.join(' ')}"`);
    };
    const query = (passwords: string, sql: string) =>
      host.sh(`psql -w -At 'host=127.0.0.1 user=postgres sslmode=require' -c '${sql}'`, {
        env: { PGPASSFILE: passwords },
      });

    const made = await postgres('initdb -D data -N -U postgres --auth=scram-sha-256 --pwfile=web/password');
    t.is(made.code, 0, made.stderr);
    t.is((await start('/run/pg/open/key')).code, 1);
    t.regex((await host.sh('cat /run/pg/log')).stdout, /private key file .* has group or world access/);
    const started = await start('/run/pg/web/key');
    t.is(started.code, 0, started.stderr);

    const encrypted = 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()';
    t.deepEqual(await query(`${web}/pgpass`, encrypted), { code: 0, stdout: 't\n', stderr: '' });
    const refused = await query('/run/inro/secrets/open/pgpass', encrypted);
    t.is(refused.code, 2);
    t.regex(refused.stderr, /has group or world access[^]*no password supplied/);

    t.is(await servedName(host, 5432, 'postgres'), 'one');
    await host.ask(['secret', 'update', 'key', '-'], { stdin: two.key });
    await host.ask(['secret', 'update', 'crt', '-'], { stdin: two.certificate });
    t.is((await query(`${web}/pgpass`, 'SELECT pg_reload_conf()')).stdout, 't\n');
    await eventually('the new certificate', async () => (await servedName(host, 5432, 'postgres')) === 'two');
    t.is((await postgres('pg_ctl stop -D data -m fast')).code, 0);
  },
);

labScenario('OpenSSH takes a private key that its user alone may read', async (t) => {
  const host = await hostWith(t, {});
  const { stdout: pair } = await host.sh(
    'cd tmp && ssh-keygen -q -t ed25519 -N "" -C test -f id && cat id.pub id && rm id id.pub',
  );
  const [publicKey = ''] = pair.split('\n');
  await publish(host, { id: pair.slice(publicKey.length + 1) }, { id: 'mode=0400' });
  await host.ask(['service', 'create', '--name', 'open', '--secret', 'id']);
  t.is((await host.sh(`ssh-keygen -y -f ${web}/id`)).stdout, `${publicKey}\n`);
  t.is((await host.sh(`ssh-agent sh -c 'ssh-add -q ${web}/id && ssh-add -L'`)).stdout, `${publicKey}\n`);
  const open = await host.sh('ssh-keygen -y -f /run/inro/secrets/open/id');
  t.not(open.code, 0);
  t.regex(open.stderr, /Permissions 0444 for .* are too open/);
});

const watching = `
  for (const path of ['key', 'held', '.']) fs.watch(path, (event) => console.log('watch', path, event));
  fs.watchFile('polled', { interval: 100 }, ({ size }) => console.log('watchFile polled', size));
  console.log('watching');`;

const nginxConfig = `
pid /run/nginx/pid;
error_log /run/nginx/log;
user www-data;
worker_processes 2;
events {}
http {
  access_log off;
  client_body_temp_path /run/nginx/body;
  proxy_temp_path /run/nginx/proxy;
  fastcgi_temp_path /run/nginx/fastcgi;
  uwsgi_temp_path /run/nginx/uwsgi;
  scgi_temp_path /run/nginx/scgi;
  server {
    listen 127.0.0.1:443 ssl;
    ssl_certificate /run/inro/secrets/tls/..data/tls.crt;
    ssl_certificate_key /run/inro/secrets/tls/..data/tls.key;
  }
  server {
    listen 127.0.0.1:80;
    location /read/ { alias /run/files/; sendfile off; }
    location /sendfile/ { alias /run/files/; sendfile on; }
  }
}
`;

/** A host with manager, agent and a network of its own, and the service `web` with these secrets. */
async function hostWith(
  t: ExecutionContext,
  secrets: Readonly<Record<string, string>>,
  references: Readonly<Record<string, string>> = {},
): Promise<Host> {
  const host = await Host.of(t, { ownNetwork: true });
  await host.startCluster();
  if (Object.keys(secrets).length > 0) await publish(host, secrets, references);
  return host;
}

/** Secrets, and a service that has them. @param references more of a secret's reference, such as `mode=0400`. */
async function publish(
  host: Host,
  secrets: Readonly<Record<string, string>>,
  references: Readonly<Record<string, string>> = {},
  service = 'web',
): Promise<void> {
  await createSecrets(host, secrets);
  const words = Object.keys(secrets).map((name) =>
    name in references ? `source=${name},${references[name]}` : name,
  );
  await host.ask(['service', 'create', '--name', service, ...words.flatMap((word) => ['--secret', word])]);
}

async function createSecrets(host: Host, secrets: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, stdin] of Object.entries(secrets))
    await host.ask(['secret', 'create', name, '-'], { stdin });
}

/** The same files as root's, 0444, in a folder of a disk. */
async function ordinaryFolder(host: Host): Promise<string> {
  const folder = join(host.folder, 'ordinary');
  await mkdir(folder);
  for (const [name, value] of Object.entries(files)) {
    await writeFile(join(folder, name), value);
    await chmod(join(folder, name), 0o444);
  }
  return folder;
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
