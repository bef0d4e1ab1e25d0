/** What a Compose file becomes, and what of it is refused. */
import test from 'ava';
import { parseYaml } from '../../../src/cli/apply/yaml.js';
import { composed } from '../../../src/cli/compose/read.js';

const warnings: string[] = [];

function read(text: string, name?: string) {
  const document = parseYaml('compose.yaml', text, { merge: true });
  return composed(document, '/srv/compose.yaml', {
    name,
    environment: (variable) => ({ TAG: '7', TOKEN: 'from outside' })[variable],
    warn: (line) => void warnings.push(line),
  });
}

const whole = `
version: "3.8"
x-usual: &usual
  environment: { TZ: UTC }
  deploy: { replicas: 2, labels: [tier=front, bare] }
secrets:
  db: { file: ./db.txt, labels: { tier: db }, x-inro: { version: 2, lease: 1h } }
  key: { external: true, name: real_key }
  drawn: { x-inro: { generate: hex:16 } }
volumes:
  data:
  theirs: { external: true }
  called: { name: other }
services:
  web:
    <<: *usual
    image: nginx:\${TAG}
    command: nginx -g "daemon off;" --x='a b'
    user: 33
    secrets:
      - db
      - { source: key, target: /run/secrets/key.pem, uid: "33", gid: www-data, mode: 0440 }
      - { source: drawn, mode: "400", x-inro: { onChange: signal=HUP } }
    labels: { of: container }
    volumes: [data:/data, "theirs:/theirs:ro", { type: volume, source: called, target: /c, read_only: true }]
    tmpfs: /tmp
    read_only: true
    working_dir: /data
    stop_signal: SIGINT
    stop_grace_period: 1m30s
    x-inro: { readers: attached, network: none }
    x-other: [anything]
  job:
    image: job
    command: [sh, -c, "echo $$HOME"]
    environment: [A=b=c, TOKEN, NOT_THERE]
    restart: on-failure
    deploy:
      mode: global
      placement: { constraints: ["node.labels.rack == 7"], max_replicas_per_node: 1 }
      update_config: { parallelism: 0, delay: 10s, order: start-first, failure_action: rollback, monitor: 500ms, max_failure_ratio: 0.25 }
`;

test('everything that is taken', (t) => {
  const { secrets, services } = read(whole);
  t.deepEqual(secrets, [
    { name: 'db', file: '/srv/db.txt', labels: { tier: 'db' }, version: 2, lease: '1h' },
    { name: 'real_key', external: true },
    { name: 'drawn', generate: 'hex:16', labels: {} },
  ]);
  const [web, job] = services;
  t.deepEqual(web, {
    name: 'web',
    image: 'nginx:7',
    args: ['nginx', '-g', 'daemon off;', '--x=a b'],
    env: { TZ: 'UTC' },
    user: '33',
    workdir: '/data',
    mounts: [
      { type: 'volume', source: 'data', target: '/data', readOnly: false },
      { type: 'volume', source: 'theirs', target: '/theirs', readOnly: true },
      { type: 'volume', source: 'other', target: '/c', readOnly: true },
      { type: 'tmpfs', target: '/tmp' },
    ],
    containerLabels: { of: 'container' },
    readOnly: true,
    stopSignal: 'SIGINT',
    stopGrace: 90,
    secrets: [
      { source: 'db', target: 'db' },
      { source: 'real_key', target: 'key.pem', uid: '33', gid: 'www-data', mode: '0440' },
      { source: 'drawn', target: 'drawn', mode: '400', onChange: 'signal=HUP' },
    ],
    replicas: 2,
    constraints: [],
    labels: { tier: 'front', bare: '' },
    readers: 'attached',
    network: 'none',
  });
  t.like(job, {
    args: ['sh', '-c', 'echo $HOME'],
    env: { A: 'b=c', TOKEN: 'from outside' },
    restart: 'on-failure',
    mode: 'global',
    constraints: ['node.labels.rack == 7'],
    maxReplicasPerNode: 1,
    update: {
      parallelism: 0,
      delay: 10,
      order: 'start-first',
      failureAction: 'rollback',
      monitor: 0.5,
      maxFailureRatio: 0.25,
    },
  });
});

test('a stack has its name before each name but those that the file gives, and files keep theirs', (t) => {
  for (const { secrets, services } of [read(whole, 'shop'), read(`name: shop\n${whole}`)]) {
    t.deepEqual(
      secrets.map(({ name, labels }) => [name, labels?.['inro.stack']]),
      [
        ['shop_db', 'shop'],
        ['real_key', undefined],
        ['shop_drawn', 'shop'],
      ],
    );
    const [web] = services;
    t.is(web?.name, 'shop_web');
    t.is(web?.labels?.['inro.stack'], 'shop');
    t.deepEqual(
      web?.mounts?.map((one) => (typeof one === 'string' ? one : one.source)),
      ['shop_data', 'theirs', 'other', undefined],
    );
    t.like(web?.secrets?.[0], { source: 'shop_db', target: 'db' });
  }
  t.is(read(`name: shop\n${whole}`, 'other').services[0]?.name, 'other_web');
});

test('a variable that is not set is said once', (t) => {
  warnings.length = 0;
  read('services: {a: {image: "x:$ABC$ABC", user: "$ABC"}}');
  t.deepEqual(warnings, ['variable ABC is not set: it stands for nothing']);
});

test('all that is not taken is said at once', (t) => {
  const error = t.throws(() =>
    read(`
networks: { front: {} }
services:
  web: { image: nginx, ports: ["80:80"], depends_on: [db], networks: [front] }
  api: { image: nginx, healthcheck: { test: x } }
`),
  );
  for (const place of [
    'networks',
    'services.web.ports',
    'services.web.depends_on',
    'services.web.networks',
    'services.api.healthcheck',
  ])
    t.true(error?.message.includes(`\n        ${place}: `), place);
  t.regex(error?.message ?? '', /5 things are not taken/);
});

const service = (text: string): string =>
  `secrets: {s: {external: true}}\nservices: {a: {image: x, ${text}}}`;

for (const [text, why] of [
  ['[]', /is to be a mapping/],
  ['services: [a]', /services: is to be a mapping/],
  ['secrets: {a: {environment: TOKEN}}', /secrets\.a\.environment: .*\/dev\/fd\/3/],
  ['secrets: {a: {}}', /secrets\.a: is to have one of file: PATH/],
  ['secrets: {a: {external: true, file: x}}', /secrets\.a\.file: an external secret is left/],
  ['secrets: {a: {external: {name: b}}}', /secrets\.a\.external: write external: true/],
  ['secrets: {a: {file: x, driver: vault}}', /secrets\.a\.driver: /],
  ['secrets: {a: {file: x, x-inro: {versoin: 2}}}', /secrets\.a\.x-inro\.versoin: is not known/],
  ['secrets: {a: {file: x, x-inro: {version: 1.5}}}', /a\.x-inro\.version: is to be a whole number/],
  ['secrets: {a: {file: x, name: b}, b: {file: y}}', /secrets\.b: has the name of secrets\.a, b/],
  ['secrets: {"a b": {file: x}}', /secrets\.a b: secret name "a b" is not valid/],
  ['services: {a: {secrets: [no], image: x}}', /services\.a\.secrets\.0: no does not stand under secrets/],
  ['services: {a: {command: x}}', /services\.a\.command: is of a container/],
  [service('secrets: [{source: s, mode: 440}]'), /secrets\.0\.mode: 440 is decimal to Compose: write/],
  [service('secrets: [{source: s, mode: 288}]'), /mode: 288 is decimal/],
  [service('secrets: [{source: s, mode: "0999"}]'), /mode "0999" is not an octal number/],
  [service('secrets: [{source: s, target: /etc/key}]'), /target: secrets are shown in \/run\/secrets/],
  [service('secrets: [{source: s, target: /run/secrets/../x}]'), /secrets are shown in/],
  [service('secrets: [{source: s, target: ../x}]'), /target "\.\.\/x" is not a file name/],
  [service('secrets: [s, {source: s}]'), /have one target "s"/],
  [service('volumes: [./x:/y]'), /volumes\.0: folders of a host are its administrator's/],
  [service('volumes: [/y]'), /volumes\.0: a volume without a name/],
  [service('volumes: [data:/y]'), /volumes\.0: data does not stand under volumes/],
  [service('volumes: [{type: bind, source: /, target: /y}]'), /volumes\.0\.type: folders of a host/],
  [service('tmpfs: ["/tmp:size=1m"]'), /tmpfs\.0: options of a tmpfs/],
  [service('command: a && b'), /command: no shell reads it, and & is/],
  [service('command: a "b'), /command: a quote is not closed/],
  [service('stop_grace_period: soon'), /stop_grace_period: is to be a length of time/],
  [service('restart: on-failure:3'), /restart: inro counts no attempts/],
  [
    service('restart: always, deploy: {restart_policy: {condition: any}}'),
    /restart: deploy\.restart_policy says/,
  ],
  [service('deploy: {restart_policy: {max_attempts: 3}}'), /max_attempts: inro goes on/],
  [service('deploy: {mode: replicated-job}'), /deploy\.mode: replicated-job is not known here/],
  [service('deploy: {mode: global, replicas: 2}'), /is global, and has a number of replicas/],
  [service('deploy: {replicas: two}'), /replicas: is to be a number/],
  [service('deploy: {rollback_config: {}}'), /deploy\.rollback_config: /],
  [service('deploy: {resources: {}}'), /deploy\.resources: inro sets no limits/],
  [
    service('deploy: {placement: {constraints: ["node.platform.os==linux"]}}'),
    /services\.a: .*node\.platform/,
  ],
  [service('x-inro: {unit: nginx, reader: any}'), /x-inro\.reader: is not known/],
  [service('user: "${NONE:?say who}"'), /services\.a\.user: variable NONE must be set: say who/],
  [service('made_up: 1'), /services\.a\.made_up: is not known here/],
] as const)
  test(`refused: ${text.replace(/^.*\n/, '')}`, (t) => {
    t.regex(t.throws(() => read(text))?.message ?? '', why);
  });
