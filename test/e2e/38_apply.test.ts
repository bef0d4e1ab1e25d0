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

const everything = `
services:
  job:
    image: redis:7
    args: [redis-server, --port, 6379]
    env: { TZ: UTC, N: 1 }
    user: 999
    workdir: /data
    network: none
    mounts: ["type=volume,source=data,target=/data", { type: tmpfs, target: /tmp, readOnly: true }]
    containerLabels: { a: b }
    readOnly: true
    stopSignal: SIGINT
    stopGrace: 30s
    restart: on-failure
    replicas: 2
    maxReplicasPerNode: 1
    constraints: [node.labels.no==where]
    labels: { tier: back }
    readers: attached
    onChange: restart
    update: { parallelism: 2, delay: 10s, order: start-first, failureAction: rollback, monitor: 20, maxFailureRatio: 0.2 }
  once:
    until: detached
    detachGrace: 5s
`;

scenario('every option of service create is a key, and what stands already is no change', async (t) => {
  const host = await Host.of(t);
  await host.startCluster();
  const apply = async (text: string, ...more: string[]) => {
    await writeFile(host.outside('/run/inro.yaml'), text);
    return host.inro(['apply', '-f', '/run/inro.yaml', '--yes', '--detach', ...more]);
  };
  const made = await apply(everything);
  t.is(made.code, 0, made.stderr);
  const inspect = async () => (await host.json(['service', 'inspect', 'job', 'once'])) as unknown[];
  t.like((await inspect())[0], {
    container: {
      image: 'redis:7',
      args: ['redis-server', '--port', '6379'],
      env: ['TZ=UTC', 'N=1'],
      labels: { a: 'b' },
      user: '999',
      workingDirectory: '/data',
      network: 'none',
      readOnly: true,
      stopSignal: 'SIGINT',
      stopGraceSeconds: 30,
    },
    restartCondition: 'on-failure',
    updateConfig: {
      parallelism: 2,
      delaySeconds: 10,
      order: 'start-first',
      failureAction: 'rollback',
      monitorSeconds: 20,
      maxFailureRatio: 0.2,
    },
  });
  t.like((await inspect())[1], { untilDetached: { graceSeconds: 5 } });
  t.regex(
    (await apply(everything)).stdout,
    /^= service job: .*\n= service once: .*\nnothing is to be changed\n$/,
  );

  const other = everything
    .replace('stopGrace: 30s', 'stopGrace: 40s')
    .replace('source=data', 'source=other')
    .replace('restart: on-failure', 'restart: none')
    .replace('workdir: /data', '')
    .replace('a: b', 'a: c')
    .replace('parallelism: 2, ', '');
  t.regex(
    (await apply(other)).stdout,
    /^~ service job: restart none; update start-first, 1 at a time, .*; container label a=c; mount other at \/data; no mount data at \/data; workdir the image's; stop grace 40 s\n= service once/,
  );
  t.like((await inspect())[0], {
    container: { workingDirectory: '', stopGraceSeconds: 40, labels: { a: 'c' } },
    restartCondition: 'none',
  });
  t.regex((await apply(other)).stdout, /nothing is to be changed/);
  t.regex(
    (await apply(other.replace('detachGrace: 5s', 'detachGrace: 6s'))).stderr,
    /service "once" is there until 5 s after detaching: that does not change/,
  );
  // What cannot change is left alone where nothing is said of it.
  t.regex((await apply('services: {once: {}}')).stdout, /nothing is to be changed/);
});

scenario('a descriptor is read, and a mode is octal however it is written', async (t) => {
  const host = await Host.of(t);
  await host.startCluster();
  const uses = ['0400', '0o440', '400', '"0440"']
    .map((mode, at) => `{source: a, target: f${at}, mode: ${mode}}`)
    .join(', ');
  await writeFile(
    host.outside('/run/inro.yaml'),
    `secrets: {a: {fd: 3, expires: 30d}}\nservices: {web: {secrets: [${uses}]}}`,
  );
  const { code, stderr } = await host.sh('printf value | inro apply -f /run/inro.yaml --yes 3<&0 </dev/null');
  t.is(code, 0, stderr);
  t.is(await host.read(`${folder}/f0`), 'value');
  t.is((await host.sh(`stat -c %a ${folder}/f?`)).stdout, '400\n440\n400\n440\n');
});

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
    ['services: {web: {restart: none}}', /runs no image, and has restart/],
    ['services: {web: {detachGrace: 5}}', /has a detach grace, and no until: detached/],
    ['services: {web: {until: detached, image: redis}}', /ends with its container/],
    ['services: {web: {image: redis, mounts: ["type=bind,source=/,target=/h"]}}', /mounts of type "bind"/],
    ['services: {web: {image: redis, env: {A: null}}}', /services\.web\.env\.A/],
    ['services: {web: {update: {order: any}}}', /services\.web\.update\.order/],
    ['secrets: {a: {file: v, withdraw: true}}', /is to be withdrawn, and has no end/],
    ['services: {web: {replicas: -1}}', /services\.web\.replicas/],
    ['services: {web: {env: {A: b}}}', /runs no image, and has env/],
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

scenario('manifests of Kubernetes Secrets are input, too, from a file or a pipe', async (t) => {
  const host = await Host.of(t);
  await host.startCluster();
  const manifest = (version: number, password: string): string => `
apiVersion: v1
kind: Secret
type: kubernetes.io/basic-auth
metadata: { name: db, labels: { tier: db }, annotations: { inro/version: "${version}" } }
data: { username: ${Buffer.from('root').toString('base64')} }
stringData: { password: ${password} }
`;
  const apply = (text: string, ...more: string[]) =>
    host.inro(['apply', '-f', '-', '--yes', ...more], { stdin: text });
  const made = await apply(manifest(1, 'first'));
  t.is(made.code, 0, made.stderr);
  t.is(
    made.stdout,
    '+ secret db_username: from document 1, username\n+ secret db_password: from document 1, password\n2 changes applied\n',
  );
  await host.ask([
    'service',
    'create',
    '--name',
    'web',
    '--secret',
    'db_username',
    '--secret',
    'db_password',
  ]);
  t.is(await host.read(`${folder}/db_username`), 'root');
  t.is(await host.read(`${folder}/db_password`), 'first');
  t.regex((await apply(manifest(1, 'other'))).stdout, /nothing is to be changed/);
  const generation = async () => (await host.sh(`readlink ${folder}/..data`)).stdout;
  const before = Number((await generation()).replace(/\D/g, ''));
  t.regex((await apply(manifest(2, 'second'))).stdout, /2 changes applied/);
  t.is(await host.read(`${folder}/db_password`), 'second');
  t.is(Number((await generation()).replace(/\D/g, '')), before + 1);

  const refused = await apply(`${manifest(3, 'third')}---\napiVersion: v1\nkind: ConfigMap\n`);
  t.is(refused.code, 2);
  t.regex(refused.stderr, /document 2: is a ConfigMap of v1/);
  t.is(await host.read(`${folder}/db_password`), 'second');

  // More than one message takes.
  const large = `apiVersion: v1\nkind: Secret\nmetadata: {name: large}\nstringData: {a: ${'x'.repeat(700_000)}, b: ${'y'.repeat(700_000)}}`;
  const tooMuch = await apply(large);
  t.is(tooMuch.code, 1);
  t.regex(tooMuch.stderr, /2 changes are .* together\n +at once there is room for .*: apply it in parts/);
});
