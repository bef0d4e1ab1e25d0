/** Manifests of Kubernetes Secrets: what they become, and what is refused, without a value in the words. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { readApplied } from '../../../src/cli/manifest/read.js';
import { openArena } from '../../../src/crypto/arena.js';
import { refuses } from '../../support/refuses.js';

const arena = openArena(4 * 1024 * 1024);

function read(t: ExecutionContext, text: string) {
  const folder = mkdtempSync(join(tmpdir(), 'inro-manifest-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'secret.yaml');
  writeFileSync(path, text);
  const { wanted, wipe } = readApplied(path);
  t.teardown(wipe);
  const values = wanted.secrets.map(({ value }) => {
    const plain = value?.read(arena);
    const shown = Buffer.from(plain?.expose() ?? []).toString();
    plain?.wipe();
    return shown;
  });
  return { ...wanted, values };
}

const head = 'apiVersion: v1\nkind: Secret\nmetadata: {name: db}\n';

test('each key is a secret, with the labels of all; stringData wins', (t) => {
  const { secrets, services, values } = read(
    t,
    `apiVersion: v1
kind: Secret
type: Opaque
immutable: false
metadata:
  name: db
  creationTimestamp: null
  uid: 0b2e
  labels: { tier: db, "app.kubernetes.io/name": 'ünï' }
  annotations: { inro/version: "2", inro/lease: 1h }
data:
  password: aHVudGVyMg==
  user: cm9vdA==
stringData:
  user: admin
  tls.key: |
    -----BEGIN KEY-----
    abc
    -----END KEY-----
`,
  );
  const labels = { tier: 'db', 'app.kubernetes.io/name': 'ünï' };
  t.like(secrets[0], { name: 'db_password', labels, version: 2, lease: '1h' });
  t.deepEqual(
    secrets.map(({ name }) => name),
    ['db_password', 'db_user', 'db_tls.key'],
  );
  t.deepEqual(values, ['hunter2', 'admin', '-----BEGIN KEY-----\nabc\n-----END KEY-----\n']);
  t.deepEqual(services, []);
  t.is(secrets[0]?.value?.from, 'document 1, password');
});

test('several documents, lists and JSON', (t) => {
  const one = (name: string) => ({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name },
    data: { k: Buffer.from(`of ${name}`).toString('base64') },
  });
  const yaml = `---\n# nothing\n---\n${head}stringData: {k: of db}\n---\n${JSON.stringify(one('json'))}\n`;
  t.deepEqual(read(t, yaml).values, ['of db', 'of json']);
  const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: [one('a'), one('b')] }, undefined, 2);
  const { secrets, values } = read(t, list);
  t.deepEqual(values, ['of a', 'of b']);
  t.is(secrets[1]?.value?.from, 'document 1.items.1, k');
});

test('a file of inro itself is read as before', (t) => {
  const { secrets, services } = read(
    t,
    'secrets: {a: {generate: "hex:16"}}\nservices: {web: {secrets: [a]}}',
  );
  t.deepEqual(secrets, [{ name: 'a', generate: 'hex:16' }]);
  t.like(services, [{ name: 'web' }]);
  t.deepEqual(read(t, '').secrets, []);
});

test('a Secret of the largest value, and what is larger', (t) => {
  const largest = 'x'.repeat(1024 * 1024);
  t.is(read(t, `${head}data: {k: ${Buffer.from(largest).toString('base64')}}`).values[0], largest);
  refuses(
    t,
    () => read(t, `${head}stringData: {k: ${'x'.repeat(2 * 1024 * 1024)}}`),
    'bad_input',
    /is larger than/,
  );
});

const secretWord = 'hunter2hunter2';
for (const [text, why] of [
  [`${head}data: {k: ${secretWord}*}`, /document 1\.data\.k: is no base64/],
  [`${head}data: {k: ${secretWord}=}`, /document 1\.data\.k: is no base64/],
  [`${head}data: {k: [${secretWord}]}`, /document 1\.data\.k: is to be one text/],
  [`${head}data: ${secretWord}`, /document 1\.data: is to be a mapping/],
  [`${head}stringData: {k: ""}`, /document 1\.stringData\.k: is empty/],
  [
    `${head}stringData:\n  k: >\n    ${secretWord}\n    more\n`,
    /stringData\.k: folds lines \(write it as one line/,
  ],
  [`${head}stringData: {k: &a ${secretWord}, l: *a}`, /document 1: has an anchor, an alias or a tag/],
  [`${head}stringData: {k: !!str ${secretWord}}`, /document 1: has an anchor, an alias or a tag/],
  [`${head}stringData: {k: "${secretWord}`, /document 1: is no YAML at line 4/],
  [`${head}stringData: {k: x, k: ${secretWord}}`, /document 1\.stringData\.k: stands there twice/],
  [`${head}stringData: {k-: x}`, /stringData\.k-: secret name "db_k-" is not valid/],
  [`${head}stringData: {${'k'.repeat(80)}: x}`, /is not valid/],
  [head, /document 1: has no value/],
  [`${head}spec: {}\nstringData: {k: x}`, /document 1\.spec: is not known here/],
  [`${head}immutable: true\nstringData: {k: x}`, /document 1\.immutable: /],
  [
    `${head}type: kubernetes.io/tls\nstringData: {tls.crt: x}`,
    /document 1\.type: kubernetes\.io\/tls needs tls\.key/,
  ],
  [`${head}type: kubernetes.io/basic-auth\nstringData: {k: x}`, /needs username or password/],
  [`${head}type: kubernetes.io/ssh-auth\nstringData: {k: x}`, /needs ssh-privatekey/],
  [`${head}type: kubernetes.io/dockercfg\nstringData: {k: x}`, /needs \.dockercfg/],
  [`${head}type: kubernetes.io/dockerconfigjson\nstringData: {k: x}`, /needs \.dockerconfigjson/],
  [`${head}type: bootstrap.kubernetes.io/token\nstringData: {k: x}`, /needs token-id and token-secret/],
  [`${head}type: kubernetes.io/service-account-token\nstringData: {token: x}`, /is made by Kubernetes/],
  ['apiVersion: v1\nkind: Secret\nstringData: {k: x}', /document 1\.metadata\.name: is missing/],
  [
    'apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: b}\nstringData: {k: x}',
    /metadata\.namespace: inro has no namespaces/,
  ],
  [
    'apiVersion: v1\nkind: Secret\nmetadata: {name: a_b}\nstringData: {k: x}',
    /metadata\.name: is no name of Kubernetes/,
  ],
  [
    `apiVersion: v1\nkind: Secret\nmetadata: {name: a, annotations: {kubectl.kubernetes.io/last-applied-configuration: '${secretWord}'}}\nstringData: {k: x}`,
    /last-applied-configuration: has the values once more/,
  ],
  [
    'apiVersion: v1\nkind: Secret\nmetadata: {name: a, annotations: {inro/version: two}}\nstringData: {k: x}',
    /is to be a number from 1/,
  ],
  [
    `${head}stringData: {k: x}\n---\n${head}stringData: {k: x}\n`,
    /document 2, k: is called db_k, as document 1, k is/,
  ],
  [
    `apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n`,
    /document 1: is a Deployment of apps\/v1: inro takes/,
  ],
  [`${head}stringData: {k: x}\n---\nsecrets: {}\n`, /document 2: has no kind/],
  ['apiVersion: v1\nkind: List\nitems: 3', /document 1\.items: is to be a list/],
] as const)
  test(`refused: ${JSON.stringify(text.slice(0, 200))}`, (t) => {
    const { message } = refuses(t, () => read(t, text), 'bad_input', why);
    t.false(message.includes('hunter'), message);
  });
