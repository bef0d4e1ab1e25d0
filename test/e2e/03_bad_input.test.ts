/** Bad input from operators ends well: with words, and nothing half-done. What single commands say stands in test/cli/*.txt. */
import { createHash } from 'node:crypto';
import { InroError } from '../../src/model/error.js';
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import { call, connectUnix } from '../../src/rpc/client.js';
import { Host, scenario } from '../support/host.js';
import { refused, type Result } from '../support/inro.js';
import { refusesAsync } from '../support/refuses.js';

const mebibyte = 1024 * 1024;

scenario('names that no command line can carry, through the socket itself', async (t) => {
  const host = await Host.of(t);
  await host.startManager();
  const connection = connectUnix(host.outside('/run/inro/manager.sock'), 'the manager');
  t.teardown(() => connection.close());
  const id = 'a'.repeat(25);
  for (const name of ['a\0b', '\0', 'two\nlines', 'a/b', '..', '', '-', 'é', 'x'.repeat(65)]) {
    const secret = { id, name, ciphertext: new Uint8Array(100), sealedKey: new Uint8Array(100) };
    await refusesAsync(
      t,
      call(connection, Control, 'createSecret', secret),
      'bad_input',
      /secret name .* is not valid/,
    );
    await refusesAsync(
      t,
      call(connection, Control, 'createService', { name, replicas: 1 }),
      'bad_input',
      /service name .* is not valid/,
    );
    await t.throwsAsync(call(connection, Control, 'getSecret', { name }), { instanceOf: InroError }, name);
  }
  for (const target of ['a\0b', 'a/b', '..', '..data', '.', '', 'two\nlines', 'x'.repeat(256)]) {
    const references = [{ secretName: 'none', target, uid: '0', gid: '0', mode: 0o444 }];
    await refusesAsync(
      t,
      call(connection, Control, 'createService', { name: 'web', references }),
      'bad_input',
      /target .* is not a file name/,
    );
  }
  for (const mode of [0o1000, 0o7777, 0xffffffff]) {
    const references = [{ secretName: 'none', target: 'x', uid: '0', gid: '0', mode }];
    await refusesAsync(
      t,
      call(connection, Control, 'createService', { name: 'web', references }),
      'bad_input',
      /mode .* is not between/,
    );
  }
  for (const badId of ['', 'x', '../../etc', 'A'.repeat(25)]) {
    const secret = {
      id: badId,
      name: 'fine',
      ciphertext: new Uint8Array(100),
      sealedKey: new Uint8Array(100),
    };
    await refusesAsync(t, call(connection, Control, 'createSecret', secret), 'bad_input', /is not an id/);
  }
  // Ciphertexts and keys that nobody made.
  for (const bytes of [0, 1, 39, 40, 100]) {
    const secret = { id, name: 'fine', ciphertext: new Uint8Array(bytes), sealedKey: new Uint8Array(100) };
    await t.throwsAsync(call(connection, Control, 'createSecret', secret), { instanceOf: InroError });
  }
  t.deepEqual(await host.json(['secret', 'ls']), []);
  t.deepEqual(await host.json(['service', 'ls']), []);
});

scenario(
  'values of 1 byte and of 1 MiB are read as they were given; none and one more byte are refused',
  async (t) => {
    const host = await Host.of(t);
    await host.startCluster();
    const most = Buffer.alloc(mebibyte, 'sixteen bytes...');
    await host.ask(['secret', 'create', 'least', '-'], { stdin: '\0' });
    await host.ask(['secret', 'create', 'most', '-'], { stdin: most });
    await host.ask(['service', 'create', '--name', 'web', '--secret', 'least', '--secret', 'most']);
    const { stdout } = await host.sh('cd /run/inro/secrets/web && sha256sum least most && wc -c < most');
    const digest = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex');
    t.is(stdout, `${digest('\0')}  least\n${digest(most)}  most\n${mebibyte}\n`);

    refused(t, await host.inro(['secret', 'create', 'none', '-'], { stdin: '' }), 2, /the value is empty/);
    refused(t, await host.inro(['secret', 'update', 'least', '-'], { stdin: '' }), 2, /the value is empty/);
    refused(
      t,
      await host.inro(['secret', 'update', 'most', '-'], { stdin: Buffer.alloc(mebibyte + 1) }),
      1,
      /the value has more than 1048576 bytes/,
    );
    t.is((await host.sh('sha256sum < /run/inro/secrets/web/most')).stdout, `${digest(most)}  -\n`);
    t.deepEqual(
      (await host.json<{ version: number }[]>(['secret', 'ls'])).map(({ version }) => version),
      [1, 1],
    );
  },
);

scenario('references that cannot be leave no service behind', async (t) => {
  const host = await Host.of(t);
  await host.startCluster();
  await host.ask(['secret', 'create', 'key', '-'], { stdin: 'v' });
  const create = (...secrets: string[]): Promise<Result> =>
    host.inro(['service', 'create', '--name', 'web', ...secrets.flatMap((secret) => ['--secret', secret])]);
  refused(t, await create('key', 'nothing'), 1, /^inro: no secret "nothing"\n/);
  refused(t, await create('key', 'source=key,target=key,mode=0400'), 2, /have one target "key"/);
  refused(t, await create('source=key,mode=7777'), 2, /mode "7777" is not between 0 and 0777/);
  t.deepEqual(await host.json(['service', 'ls']), []);
  t.like((await host.json(['secret', 'inspect', 'key']))[0], { services: [] });

  // Octal, always.
  t.is((await create('source=key,mode=400')).code, 0);
  t.is((await host.sh('stat -c %a /run/inro/secrets/web/key')).stdout, '400\n');

  // And a failed change leaves the service as it was.
  refused(
    t,
    await host.inro(['service', 'update', '--secret-rm', 'key', '--secret-add', 'nothing', 'web']),
    1,
    /no secret "nothing"/,
  );
  t.is(await host.read('/run/inro/secrets/web/key'), 'v');
  refused(
    t,
    await host.inro(['secret', 'rm', 'key']),
    1,
    /secret "key" is in use by service web\n.*--secret-rm key web/,
  );
});

scenario('a filter that is not known is refused, also when there is nothing to filter', async (t) => {
  const host = await Host.of(t);
  await host.startManager();
  for (const kind of ['secret', 'service', 'node']) {
    refused(
      t,
      await host.inro([kind, 'ls', '--filter', 'colour=red']),
      2,
      /filter "colour=red" is not understood/,
    );
  }
  await host.ask(['secret', 'create', 'one', '-'], { stdin: 'v' });
  refused(
    t,
    await host.inro(['secret', 'ls', '--filter', 'constructor=x']),
    2,
    /filter "constructor=x" is not understood/,
  );
});

scenario('a result that cannot be written is a failure', async (t) => {
  const host = await Host.of(t);
  await host.startManager();
  const words = /^inro: done, but the result cannot be written: ENOSPC/;
  refused(t, await host.sh('inro token show worker > /dev/full'), 1, words);
  t.is((await host.sh('inro secret --help > /dev/full')).code, 1);
  t.is((await host.sh('inro secret ls | true')).stderr, '', 'a reader that has seen enough is no failure');
});
