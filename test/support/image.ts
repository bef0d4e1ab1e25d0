/** What containers of tests are made of: busybox alone. */

export const image = 'bb';

const applets = [
  'sh',
  'cat',
  'sleep',
  'ls',
  'true',
  'false',
  'head',
  'wc',
  'grep',
  'id',
  'env',
  'dd',
  'tail',
];

/** A line of shell that writes the image's file system to standard output, as a tar. */
export const imageTar = [
  'mkdir -p /run/image/bin /run/image/tmp',
  'cp /bin/busybox /run/image/bin/',
  ...applets.map((each) => `ln -sf busybox /run/image/bin/${each}`),
  'tar -C /run/image -c .',
].join(' && ');
