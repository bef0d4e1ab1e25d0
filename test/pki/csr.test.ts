import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { generateNodeKey, signBytes, spkiOf } from '../../src/crypto/signing.js';
import { InroError } from '../../src/model/error.js';
import { createCsr, readCsr } from '../../src/pki/csr.js';
import {
  bitString,
  contextOf,
  fromBytes,
  integer,
  oid,
  sequence,
  toBytes,
  type Der,
} from '../../src/pki/der.js';
import { fromPem, toPem } from '../../src/pki/pem.js';
import { findOpenssl } from './openssl.js';

const label = 'CERTIFICATE REQUEST';
const key = generateNodeKey();
const pem = createCsr(key.privateKey);
const der = fromPem(label, pem) as Uint8Array;

test('a request gives its public key back, from PEM and from DER', (t) => {
  t.true(readCsr(pem).equals(key.publicKey));
  t.true(readCsr(der).equals(key.publicKey));
  t.true(readCsr(`\n${pem.replaceAll('\n', '\r\n')}`).equals(key.publicKey));
});

test('every bit flip of a request is refused', (t) => {
  for (let bit = 0; bit < der.length * 8; bit++) {
    const flipped = Uint8Array.from(der);
    flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
    const error = t.throws(() => readCsr(flipped), { instanceOf: InroError }, `bit ${bit}`);
    t.is(error?.code, 'bad_input', `bit ${bit}`);
  }
});

test('every cut of a request is refused', (t) => {
  for (let length = 0; length < der.length; length++) {
    t.is(t.throws(() => readCsr(der.subarray(0, length)), { instanceOf: InroError })?.code, 'bad_input');
  }
});

test('a request that carries the key of another is refused', (t) => {
  const other = spkiOf(generateNodeKey().publicKey);
  const own = Buffer.from(spkiOf(key.publicKey));
  const stolen = Buffer.from(der);
  stolen.set(other, stolen.indexOf(own));
  t.throws(() => readCsr(stolen), {
    instanceOf: InroError,
    message: 'the certificate request is not signed by its own key',
  });
});

test('a request of another form is refused, though its signature is good', (t) => {
  const spki = fromBytes(spkiOf(key.publicKey));
  const signed = (info: Der, ...more: Der[]): Uint8Array => {
    const signature = bitString(signBytes(key.privateKey, toBytes(info)));
    return toBytes(sequence(info, sequence(oid('1.2.840.10045.4.3.2')), signature, ...more));
  };
  const info = (version: number): Der =>
    sequence(integer(Uint8Array.of(version)), sequence(), spki, contextOf(0));
  t.true(readCsr(signed(info(0))).equals(key.publicKey));
  const message = /is not a PKCS#10 request/;
  t.throws(() => readCsr(signed(info(1))), { instanceOf: InroError, message });
  t.throws(() => readCsr(signed(info(0), sequence())), { instanceOf: InroError, message });
  t.throws(() => readCsr(signed(sequence(spki))), { instanceOf: InroError, message });
});

test('text that is not one PEM block is refused', (t) => {
  const message = /is not one PEM block/;
  for (const text of [
    '',
    'hello',
    `${pem}${pem}`,
    pem.replace('BEGIN', 'BEGIM'),
    pem.replace('MI', 'M!'),
    toPem('CERTIFICATE', der),
  ]) {
    t.is(t.throws(() => readCsr(text), { instanceOf: InroError, message })?.code, 'bad_input');
  }
});

test('a request of 16 KiB is the largest that is looked at', (t) => {
  const padded = (size: number): Uint8Array => Buffer.concat([der, Buffer.alloc(size - der.length)]);
  t.is(t.throws(() => readCsr(padded(16 * 1024)), { instanceOf: InroError })?.code, 'bad_input');
  const error = t.throws(() => readCsr(padded(16 * 1024 + 1)), { instanceOf: InroError });
  t.is(error?.code, 'too_large');
  t.is(error?.message, 'a certificate request of 16385 bytes is longer than 16384');
  t.is(t.throws(() => readCsr(pem + ' '.repeat(16 * 1024)), { instanceOf: InroError })?.code, 'too_large');
});

test('garbage is an InroError, soon', (t) => {
  const isRefused = (bytes: string | Uint8Array): boolean => {
    try {
      readCsr(bytes);
      return false;
    } catch (error) {
      return error instanceof InroError;
    }
  };
  const derLike = fc.array(
    fc.constantFrom(0x30, 0x31, 0xa0, 0x80, 0x84, 0x02, 0x03, 0x06, 0x1e, 0xff, 0x7f, 0x00, 0x01),
    { maxLength: 400 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 1000 }), isRefused));
  fc.assert(
    fc.property(derLike, (bytes) => isRefused(Uint8Array.from(bytes))),
    { numRuns: 1000 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => isRefused(toPem(label, bytes))));
  fc.assert(fc.property(fc.string({ unit: 'binary' }), isRefused));
  for (const byte of [0x30, 0x80, 0xa0, 0x24, 0xff, 0x00])
    t.true(isRefused(new Uint8Array(16 * 1024).fill(byte)));
  t.true(isRefused(Buffer.from('3080'.repeat(8 * 1024), 'hex')), 'indefinite lengths, 8192 deep');
});

const openssl = findOpenssl();
const withOpenssl = openssl === undefined ? test.skip : test;
const skipped = openssl === undefined ? ' (no openssl program on this host)' : '';

function inFolder<T>(run: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'inro-csr-'));
  try {
    return run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

withOpenssl(`openssl verifies our request${skipped}`, (t) => {
  const output = execFileSync('openssl', ['req', '-verify', '-noout', '-text'], {
    input: pem,
    stdio: 'pipe',
  }).toString();
  t.regex(output, /ecdsa-with-SHA256/);
  t.regex(output, /NIST CURVE: P-256/);
});

/** A request made by openssl, PEM, with its public key. */
function opensslCsr(...options: string[]): { csr: string; publicPem: string } {
  return inFolder((folder) => {
    const file = join(folder, 'csr.pem');
    execFileSync(
      'openssl',
      [
        'req',
        '-new',
        '-nodes',
        '-keyout',
        join(folder, 'key.pem'),
        '-out',
        file,
        '-subj',
        '/CN=any/OU=one',
        ...options,
      ],
      {
        stdio: 'pipe',
      },
    );
    const publicPem = execFileSync('openssl', ['req', '-in', file, '-noout', '-pubkey'], {
      stdio: 'pipe',
    }).toString();
    return { csr: readFileSync(file, 'utf8'), publicPem };
  });
}

const p256 = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];

withOpenssl(`a request of openssl is read, whatever names and extensions it has${skipped}`, (t) => {
  const extension = [
    '-addext',
    'basicConstraints=critical,CA:TRUE',
    '-addext',
    'subjectAltName=DNS:inro-manager',
  ];
  for (const options of [p256, [...p256, ...extension]]) {
    const { csr, publicPem } = opensslCsr(...options);
    t.is(readCsr(csr).export({ type: 'spki', format: 'pem' }), publicPem);
  }
});

withOpenssl(`a request for another kind of key, curve or hash is refused with words${skipped}`, (t) => {
  const table: [string[], RegExp][] = [
    [['-newkey', 'rsa:2048'], /has no P-256 key with an uncompressed point/],
    [['-newkey', 'ed25519'], /has no P-256 key with an uncompressed point/],
    [['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384'], /has no P-256 key with an uncompressed point/],
    [[...p256, '-pkeyopt', 'ec_param_enc:explicit'], /has no P-256 key with an uncompressed point/],
    [[...p256, '-sha512'], /is not signed with ECDSA and SHA-256/],
  ];
  for (const [options, message] of table) {
    const error = t.throws(
      () => readCsr(opensslCsr(...options).csr),
      { instanceOf: InroError, message },
      options.join(' '),
    );
    t.regex(error?.remedy ?? '', /openssl req -new/);
  }
});

withOpenssl(`the command in the remedy makes a request that is read${skipped}`, (t) => {
  const remedy = t.throws(() => readCsr('x'), { instanceOf: InroError })?.remedy ?? '';
  const command = remedy.slice(remedy.indexOf('openssl ')).split(' ');
  inFolder((folder) => {
    writeFileSync(join(folder, 'empty.cnf'), '[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=any\n');
    const args = [
      ...command.slice(1),
      '-keyout',
      join(folder, 'key.pem'),
      '-config',
      join(folder, 'empty.cnf'),
    ];
    const csr = execFileSync('openssl', args, { stdio: 'pipe' }).toString();
    t.notThrows(() => readCsr(csr));
  });
});
