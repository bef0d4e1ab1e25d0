/** Compose files as input: what they say is done as one step, and nothing when part of it cannot be. */
import { mkdir, writeFile } from 'node:fs/promises';
import { Host, scenario } from '../support/host.js';

const first = `
x-usual: &usual
  deploy: { replicas: 2 }
secrets:
  db: { file: ./db.txt }
  shared: { external: true }
services:
  web:
    <<: *usual
    secrets: [db, { source: shared, target: /run/secrets/key, mode: 0440, gid: "33" }]
`;

scenario(
  'a stack is deployed, changed as one generation, and beside another one of the same file',
  async (t) => {
    const host = await Host.of(t);
    await host.startCluster();
    const folder = '/run/inro/secrets/shop_web';
    await mkdir(host.outside('/run/app'));
    const write = (name: string, text: string) => writeFile(host.outside(`/run/app/${name}`), text);
    const deploy = (...more: string[]) =>
      host.inro(['deploy', '-f', '/run/app/compose.yaml', '--yes', ...more]);
    await write('db.txt', 'first');
    await write('compose.yaml', first);

    const early = await deploy('shop');
    t.is(early.code, 1);
    t.regex(early.stderr, /no secret "shared": the file says that there is one/);
    t.is(await host.ask(['secret', 'ls', '-q']), '');
    await host.ask(['secret', 'create', 'shared', '-'], { stdin: 'key' });

    const done = await deploy('shop');
    t.is(done.code, 0, done.stderr);
    t.regex(
      done.stdout,
      /^\+ secret shop_db: from \/run\/app\/db.txt\n= secret shared: version 1\n\+ service shop_web: 2 tasks, .*\n2 changes applied\n$/,
    );
    t.is(await host.read(`${folder}/db`), 'first');
    t.is((await host.sh(`stat -c '%a %g' ${folder}/key`)).stdout, '440 33\n');
    const [service] = await host.json(['service', 'inspect', 'shop_web']);
    t.like(service, { labels: { 'inro.stack': 'shop' }, replicas: 2 });
    t.regex((await deploy('shop')).stdout, /nothing is to be changed/);

    const generation = async (): Promise<number> =>
      Number((await host.sh(`readlink ${folder}/..data`)).stdout.replace(/\D/g, ''));
    const before = await generation();
    await write('db.txt', 'second');
    await write(
      'compose.yaml',
      first.replace('./db.txt', './db.txt, x-inro: { version: 2 }').replace('mode: 0440', 'mode: 0400'),
    );
    const changed = await deploy('shop');
    t.regex(changed.stdout, /2 changes applied/);
    t.is(await host.read(`${folder}/db`), 'second');
    t.is((await host.sh(`stat -c %a ${folder}/key`)).stdout, '400\n');
    t.is(await generation(), before + 1);

    // x-inro says version 2, and here there is none yet: what is there first is version 1.
    t.is((await deploy('test')).code, 0);
    t.is(await host.read('/run/inro/secrets/test_web/db'), 'second');
    const stacks = await host.json<{ name: string }[]>([
      'service',
      'ls',
      '--filter',
      'label=inro.stack=test',
    ]);
    t.deepEqual(
      stacks.map(({ name }) => name),
      ['test_web'],
    );
    t.is((await deploy()).code, 0);
    t.is(await host.read('/run/inro/secrets/web/db'), 'second');
  },
);

scenario('a container is deployed as the file says, and only what is another is changed', async (t) => {
  const host = await Host.of(t);
  await host.startCluster();
  const job = `
volumes: { data: }
services:
  job:
    image: redis:\${TAG:-7}
    command: redis-server --save "60 1"
    environment: [TZ=UTC]
    volumes: [data:/data]
    stop_grace_period: 1m
    deploy: { placement: { constraints: [node.labels.no==where] }, restart_policy: { condition: on-failure } }
`;
  const deploy = async (text: string, env: Record<string, string> = {}) => {
    await writeFile(host.outside('/run/compose.yaml'), text);
    return host.inro(['deploy', '-c', '/run/compose.yaml', 's', '--yes', '--detach'], { env });
  };
  t.is((await deploy(job)).code, 0);
  const [made] = await host.json(['service', 'inspect', 's_job']);
  t.like(made, {
    restartCondition: 'on-failure',
    constraints: ['node.labels.no==where'],
    container: {
      image: 'redis:7',
      args: ['redis-server', '--save', '60 1'],
      env: ['TZ=UTC'],
      mounts: [{ type: 'volume', source: 's_data', target: '/data', readOnly: false }],
      stopGraceSeconds: 60,
    },
  });
  t.regex((await deploy(job)).stdout, /nothing is to be changed/);
  t.regex((await deploy(job, { TAG: '8' })).stdout, /^~ service s_job: image redis:7 -> redis:8\n/);
  t.regex(
    (await deploy(job.replace('1m', '2m'), { TAG: '8' })).stdout,
    /^~ service s_job: stop grace 120 s\n1 change applied\n$/,
  );
});

scenario('a file of which part is not taken changes nothing', async (t) => {
  const host = await Host.of(t);
  await host.startCluster();
  await writeFile(
    host.outside('/run/compose.yaml'),
    'secrets: {a: {x-inro: {generate: "hex:16"}}}\nservices: {web: {secrets: [a]}, api: {image: x, ports: ["80:80"]}}',
  );
  const { code, stderr } = await host.inro(['deploy', '-f', '/run/compose.yaml', '--yes']);
  t.is(code, 2);
  t.regex(stderr, /one thing is not taken\n +services\.api\.ports: /);
  t.is(await host.ask(['secret', 'ls', '-q']), '');
});
