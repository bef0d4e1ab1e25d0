/** Several changes as one: shown first, then all of them or none; each task sees them as one generation. */
import { writeFile } from 'node:fs/promises';
import { Host, scenario } from '../support/host.js';

const folder = '/run/inro/secrets/web';

const first = `
secrets:
  db_password:
    file: db.txt
    labels: { tier: db }
    lease: 1h
  api_key:
    generate: hex:16
services:
  web:
    replicas: 1
    secrets:
      - source: db_password
        target: pw
        mode: 0400
`;
const second = `
secrets:
  db_password:
    file: db.txt
    version: 2
    labels: { tier: front }
  api_key:
    generate: hex:16
services:
  web:
    secrets:
      - source: db_password
        target: pw
      - api_key
    labels: { tier: front }
`;

scenario(
  'a file says what there is to be; what stands already is left, what is new comes as one step',
  async (t) => {
    const host = await Host.of(t);
    await host.startCluster();
    const write = (name: string, text: string) => writeFile(host.outside(`/run/${name}`), text);
    const apply = (...more: string[]) => host.inro(['apply', '-f', '/run/inro.yaml', ...more]);
    await write('db.txt', 'first value');
    await write('inro.yaml', first);

    const shown = await apply();
    t.is(shown.code, 2);
    t.regex(
      shown.stdout,
      /^\+ secret db_password: from \/run\/db.txt\n\+ secret api_key: generated: hex:16\n\+ service web: 1 task, secrets db_password as pw\n$/,
    );
    t.regex(shown.stderr, /nothing was changed\n +to do what stands above: --yes/);
    t.is(await host.ask(['secret', 'ls', '-q']), '');
    t.is((await apply('--dry-run')).code, 0);
    t.is(await host.ask(['secret', 'ls', '-q']), '');

    const done = await apply('--yes');
    t.is(done.code, 0, done.stderr);
    t.regex(done.stdout, /3 changes applied\n$/);
    t.is(await host.read(`${folder}/pw`), 'first value');
    t.is((await host.sh(`stat -c %a ${folder}/pw`)).stdout, '400\n');
    t.regex(
      (await apply('--yes')).stdout,
      /^= secret db_password: version 1\n= secret api_key: version 1\n= service web: 1 running\nnothing is to be changed\n$/,
    );

    // A new value, a new file and labels: the generation's number has grown by one.
    const generation = async (): Promise<number> =>
      Number((await host.sh(`readlink ${folder}/..data`)).stdout.replace(/\D/g, ''));
    const before = await generation();
    await write('db.txt', 'second value');
    await write('inro.yaml', second);
    const changed = await apply('--yes');
    t.is(changed.code, 0, changed.stderr);
    t.regex(
      changed.stdout,
      /^~ secret db_password: version 1 -> 2, from \/run\/db.txt; label tier=front\n= secret api_key: version 1\n~ service web: label tier=front; secret db_password as pw; secret api_key as api_key\n2 changes applied\n$/,
    );
    t.is(await host.read(`${folder}/pw`), 'second value');
    t.regex(await host.read(`${folder}/api_key`), /^[0-9a-f]{32}$/);
    t.is(await generation(), before + 1);
    const listed = await host.json<{ applied: boolean; changes: { action: string }[] }>([
      'apply',
      '-f',
      '/run/inro.yaml',
      '--yes',
    ]);
    t.like(listed, { applied: false });
  },
);

scenario('what cannot be done is refused by its name, and nothing of it is done', async (t) => {
  const host = await Host.of(t);
  await host.startCluster();
  const apply = async (text: string) => {
    await writeFile(host.outside('/run/inro.yaml'), text);
    return host.inro(['apply', '-f', '/run/inro.yaml', '--yes']);
  };
  await writeFile(host.outside('/run/v'), 'value');
  const cases = [
    ['secrets: {a: {file: v, colour: red}}', /secrets\.a: Unrecognized key: "colour"/],
    ['secrets: {a: {file: v, generate: "hex:16"}}', /secret "a" has 2 sources/],
    ['secrets: {a: {}}', /secret "a" has 0 sources/],
    ['secrets: {"a b": {file: v}}', /name/],
    ['volumes: {}', /Unrecognized key: "volumes"/],
    ['services: {web: {replicas: -1}}', /services\.web\.replicas/],
    ['services: {web: {env: {A: b}}}', /runs no image, and has args, env or user/],
    ['services: {web: {secrets: [nothing]}}', /no secret "nothing"/],
    ['secrets: [', /inro\.yaml/],
    ['secrets: {a: {file: none}}', /none/],
    // The first two would do: the third is why they are not done.
    ['secrets: {a: {file: v}}\nservices: {web: {secrets: [a]}, api: {secrets: [b]}}', /no secret "b"/],
  ] as const;
  for (const [text, why] of cases) {
    const { code, stderr } = await apply(text);
    t.true(code === 1 || code === 2, `${text}: ${code}`);
    t.regex(stderr, why, text);
  }
  t.is(await host.ask(['secret', 'ls', '-q']), '');
  t.is(await host.ask(['service', 'ls', '-q']), '');

  t.is((await apply('secrets: {a: {file: v}}\nservices: {web: {secrets: [a]}}')).code, 0);
  t.regex(
    (await apply('secrets: {a: {file: v, version: 5}}')).stderr,
    /secret "a" has version 1: the next one is not 5/,
  );
  t.regex(
    (await apply('services: {web: {mode: global, secrets: [a]}}')).stderr,
    /is replicated: that does not change/,
  );
  t.regex(
    (await apply('services: {web: {image: redis, secrets: [a]}}')).stderr,
    /runs no image: that does not change/,
  );
});
