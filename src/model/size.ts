/** A number of bytes as people write it: `512 bytes`, `64 KiB`, `5.2 MiB`. */
export function sizeText(bytes: number): string {
  if (bytes === Infinity) return 'unlimited';
  if (bytes < 1024) return `${bytes} bytes`;
  const [value, unit] = bytes < 2 ** 20 ? [bytes / 1024, 'KiB'] : [bytes / 2 ** 20, 'MiB'];
  return `${Math.round(value * 10) / 10} ${unit}`;
}
