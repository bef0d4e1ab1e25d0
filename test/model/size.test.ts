import test from 'ava';
import { sizeText } from '../../src/model/size.js';

test('bytes as people write them', (t) => {
  t.deepEqual(
    [0, 1023, 1024, 65_536, 1_500, 2 ** 20 - 1, 2 ** 20, 5_505_024, 64 * 2 ** 20, Infinity].map(sizeText),
    [
      '0 bytes',
      '1023 bytes',
      '1 KiB',
      '64 KiB',
      '1.5 KiB',
      '1024 KiB',
      '1 MiB',
      '5.3 MiB',
      '64 MiB',
      'unlimited',
    ],
  );
});
