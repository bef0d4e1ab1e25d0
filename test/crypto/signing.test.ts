import { generateKeyPairSync } from 'node:crypto';
import test from 'ava';
import fc from 'fast-check';
import {
  constantTimeEqual,
  generateNodeKey,
  isP256,
  publicKeyOf,
  readPrivateKey,
  readPublicKey,
  sha256,
  signBytes,
  spkiOf,
  verifyBytes,
} from '../../src/crypto/signing.js';
import { InroError } from '../../src/model/error.js';

const key = generateNodeKey();
const words = Buffer.from('inro test statement');

test('a fresh key is P-256, and its PEM gives the same key back', (t) => {
  t.true(isP256(key.privateKey));
  t.true(isP256(key.publicKey));
  t.regex(key.privatePem, /^-----BEGIN PRIVATE KEY-----\n/);
  t.true(publicKeyOf(readPrivateKey(key.privatePem)).equals(key.publicKey));
  t.false(generateNodeKey().publicKey.equals(key.publicKey));
});

test('a signature verifies with its key over its bytes, and with nothing else', (t) => {
  const signature = signBytes(key.privateKey, words);
  t.is(signature[0], 0x30, 'DER: a SEQUENCE');
  t.true(verifyBytes(key.publicKey, words, signature));
  t.false(verifyBytes(generateNodeKey().publicKey, words, signature));
  t.false(verifyBytes(key.publicKey, Buffer.from('inro test statemenT'), signature));
  t.false(verifyBytes(key.publicKey, words, new Uint8Array()));
});

test('every bit flip of a signature is refused', (t) => {
  const signature = signBytes(key.privateKey, words);
  for (let bit = 0; bit < signature.length * 8; bit++) {
    const flipped = Uint8Array.from(signature);
    flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
    t.false(verifyBytes(key.publicKey, words, flipped), `bit ${bit}`);
  }
});

test('any bytes given as a signature are refused without a throw', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (garbage) => !verifyBytes(key.publicKey, words, garbage)),
  );
  t.pass();
});

test('a key of another kind verifies nothing', (t) => {
  const other = generateKeyPairSync('ec', { namedCurve: 'secp384r1' });
  t.false(verifyBytes(other.publicKey, words, signBytes(other.privateKey, words)));
});

test('SPKI is 91 bytes and gives the same key back', (t) => {
  const spki = spkiOf(key.publicKey);
  t.is(spki.length, 91);
  t.true(readPublicKey(spki).equals(key.publicKey));
});

test('another key, another encoding, or a point off the curve is no public key', (t) => {
  const p384 = generateKeyPairSync('ec', { namedCurve: 'secp384r1' }).publicKey;
  const ed25519 = generateKeyPairSync('ed25519').publicKey;
  const offCurve = Uint8Array.from(spkiOf(key.publicKey));
  offCurve[90] = (offCurve[90] as number) ^ 1;
  for (const spki of [spkiOf(p384), spkiOf(ed25519), offCurve, new Uint8Array(91), new Uint8Array()]) {
    t.is(t.throws(() => readPublicKey(spki), { instanceOf: InroError })?.code, 'bad_input');
  }
});

test('a private key that is damaged, encrypted or of another kind is refused, and not quoted', (t) => {
  const pem = key.privatePem;
  const middle = pem.slice(60, 120);
  const encrypted = key.privateKey.export({
    type: 'pkcs8',
    format: 'pem',
    cipher: 'aes-256-cbc',
    passphrase: 'x',
  });
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({
    type: 'pkcs8',
    format: 'pem',
  });
  const table: [string, string, RegExp][] = [
    ['empty', '', /not an unencrypted PEM private key/],
    ['cut', pem.slice(0, 150), /not an unencrypted PEM private key/],
    ['damaged', pem.replace(middle, middle.toLowerCase()), /not an unencrypted PEM private key/],
    ['encrypted', encrypted as string, /not an unencrypted PEM private key/],
    ['RSA', rsa as string, /not a P-256 key/],
    ['endless', pem + 'A'.repeat(10_000), /longer than 8192 characters/],
  ];
  for (const [name, text, message] of table) {
    const error = t.throws(() => readPrivateKey(text), { instanceOf: InroError, message }, name);
    t.is(error?.cause, undefined, name);
    t.false(error?.message.includes(middle), name);
  }
});

test('sha256 is SHA-256 (FIPS 180-2, appendix B.1)', (t) => {
  const hex = Buffer.from(sha256(Buffer.from('abc'))).toString('hex');
  t.is(hex, 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
});

test('constantTimeEqual compares content and takes different lengths', (t) => {
  t.true(constantTimeEqual(Uint8Array.of(1, 2), Uint8Array.of(1, 2)));
  t.false(constantTimeEqual(Uint8Array.of(1, 2), Uint8Array.of(1, 3)));
  t.false(constantTimeEqual(Uint8Array.of(1, 2), Uint8Array.of(1, 2, 3)));
  t.true(constantTimeEqual(new Uint8Array(), new Uint8Array()));
});
