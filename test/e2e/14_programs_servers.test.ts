/** Servers and their clients as they are installed, given their keys and passwords as secrets. */
import { Contained } from '../support/contained.js';
import { eventually } from '../support/inro.js';
import { labScenario } from '../support/lab.js';
import { createSecrets, hostWith, publish } from '../support/published.js';
import { servedName, tlsPair } from '../support/tls_pair.js';

const web = '/run/inro/secrets/web';

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
  const page = 'hunter2\n'.repeat(25_000);
  const host = await hostWith(t, { plain: page, mapped: page }, { mapped: 'mmap' });
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
  for (const path of ['read/plain', 'directio/plain', 'read/mapped', 'sendfile/mapped'])
    t.true((await get(path)).stdout === page, path);
  const cut = await get('sendfile/plain');
  t.deepEqual(
    [cut.code, cut.stdout],
    [18, ''],
    'it does not fall back to read(2): headers, and nothing more',
  );

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
  const come = (['key', 'crt'] as const).flatMap((name) => [
    '--secret-add',
    `source=${name}3,${rights[name]}`,
  ]);
  await host.ask(['service', 'update', ...gone, ...come, 'tls']);
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
    const secrets = {
      password: 's3cret',
      key: one.key,
      crt: one.certificate,
      pgpass: '127.0.0.1:*:*:*:s3cret\n',
    };
    const rights = { password: `${owner},mode=0400`, key: `${owner},mode=0600`, pgpass: 'mode=0600' };
    await publish(host, secrets, rights);
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
    location /directio/ { alias /run/files/; sendfile on; directio 1; }
    location /sendfile/ { alias /run/files/; sendfile on; }
  }
}
`;
