/**
 * A look at an lmdb file before it is mapped: lmdb trusts it, and a cut, foreign or damaged one ends the process by
 * SIGBUS or SIGSEGV instead of an error. Layout: liblmdb/mdb.c, MDB_page, MDB_node and MDB_meta, data version 2.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

const magic = 0xbeefc0de;
const dataVersion = 2;
const at = {
  magic: 24,
  version: 28,
  pageBytes: 48,
  freeRoot: 88,
  mainEntries: 128,
  mainRoot: 136,
  lastPage: 144,
  transaction: 152,
} as const;
const noPage = 0xffff_ffff_ffff_ffffn;
const metaBytes = 160;
const pageSizes = [4096, 8192, 16_384, 32_768];
/** lmdb need not write the last pages when it freed them in the transaction that took them. */
const unwrittenPages = 16;

/** @returns what is wrong with the file, or undefined when it may be opened (also when there is none yet). */
export function faultOf(path: string): string | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const { size } = fstatSync(descriptor);
    if (size === 0) return undefined; // made, and not begun with
    const first = readMeta(descriptor, 0);
    if (first === undefined) return 'it is not an lmdb file';
    const second = readMeta(descriptor, first.pageBytes);
    if (second === undefined) return 'it is cut inside its head';
    // Each commit is written over the older head: even ones first, odd ones second.
    const [even, odd] = [first.transaction, second.transaction];
    const follow = even - odd === 1n || odd - even === 1n || (even === 0n && odd === 0n);
    if (!follow || even % 2n !== 0n) return 'its heads do not belong together';
    const pages = Math.floor(size / first.pageBytes);
    const lastPage = Math.max(first.lastPage, second.lastPage);
    const needed = Math.max(
      lastPage - Math.min(unwrittenPages, lastPage >> 2),
      ...first.roots,
      ...second.roots,
    );
    if (pages <= needed) return `it is cut: ${pages} of ${lastPage + 1} pages are there`;
    return faultOfTrees(descriptor, first.transaction > second.transaction ? first : second);
  } finally {
    closeSync(descriptor);
  }
}

interface Meta {
  pageBytes: number;
  lastPage: number;
  /** Pages at which its trees begin. */
  roots: number[];
  freeRoot: number | undefined;
  mainRoot: number | undefined;
  mainEntries: bigint;
  transaction: bigint;
}

function readMeta(descriptor: number, position: number): Meta | undefined {
  const meta = Buffer.alloc(metaBytes);
  if (readSync(descriptor, meta, 0, metaBytes, position) !== metaBytes) return undefined;
  if (meta.readUInt32LE(at.magic) !== magic || meta.readUInt32LE(at.version) !== dataVersion)
    return undefined;
  const pageBytes = meta.readUInt32LE(at.pageBytes);
  if (!pageSizes.includes(pageBytes)) return undefined;
  const rootAt = (offset: number): number | undefined => {
    const root = meta.readBigUInt64LE(offset);
    return root === noPage ? undefined : Number(root);
  };
  const [freeRoot, mainRoot] = [rootAt(at.freeRoot), rootAt(at.mainRoot)];
  return {
    pageBytes,
    lastPage: Number(meta.readBigUInt64LE(at.lastPage)),
    roots: [freeRoot, mainRoot].flatMap((root) => root ?? []),
    freeRoot,
    mainRoot,
    mainEntries: meta.readBigUInt64LE(at.mainEntries),
    transaction: meta.readBigUInt64LE(at.transaction),
  };
}

const kind = { branch: 1, leaf: 2, overflow: 4 } as const;
/** Of a page: its number (8 bytes), its transaction (8), padding (2), flags (2), lower and upper end of what is free (2 each). */
const page = { transaction: 8, flags: 18, lower: 20, upper: 22, pages: 20, body: 24 } as const;
/** Of an entry: its size or the page below it (4, with 2 more from the flags), flags (2), the key's size (2), the key. */
const node = { low: 0, high: 2, flags: 4, keyBytes: 6, key: 8 } as const;
const flagBig = 1;
/** What a big value has in its place: the number of its first page, and two more numbers. */
const bigBytes = 24;
const maxDepth = 32;

/** Each page of both trees is what it says that it is, is in one place alone, and nothing points out of the file. */
function faultOfTrees(descriptor: number, meta: Meta): string | undefined {
  const { pageBytes, lastPage, freeRoot, mainRoot, transaction } = meta;
  const used = new Set<number>([0, 1]);
  let entries = 0;
  const read = Buffer.alloc(pageBytes);
  const fault = (number: number, what: string): Error => new Error(`page ${number} ${what}`);

  const claim = (number: number, count: number): void => {
    if (number < 2 || number + count - 1 > lastPage) throw fault(number, 'is outside of it');
    for (let n = number; n < number + count; n++) {
      if (used.has(n)) throw fault(n, 'is used twice');
      used.add(n);
    }
  };

  const walk = (number: number, depth: number, onFree?: (list: Buffer, isLong: boolean) => void): void => {
    if (depth > maxDepth) throw fault(number, 'is too deep in its tree');
    claim(number, 1);
    const bytes = Buffer.from(load(number));
    const flags = bytes.readUInt16LE(page.flags);
    if (flags !== kind.branch && flags !== kind.leaf) throw fault(number, 'is of no kind that can be here');
    const [lower, upper] = [bytes.readUInt16LE(page.lower), bytes.readUInt16LE(page.upper)];
    const room = pageBytes - page.body;
    if (lower % 2 !== 0 || lower > upper || upper > room) throw fault(number, 'is damaged');
    let before: Buffer | undefined;
    let taken = 0;
    for (let n = 0; n < lower / 2; n++) {
      const start = page.body + bytes.readUInt16LE(page.body + 2 * n);
      if (start < page.body + upper || start + node.key > pageBytes)
        throw fault(number, 'has an entry outside of it');
      const keyBytes = bytes.readUInt16LE(start + node.keyBytes);
      const keyEnd = start + node.key + keyBytes;
      if (keyEnd > pageBytes) throw fault(number, 'has a key that is longer than it');
      const low = bytes.readUInt16LE(start + node.low) + bytes.readUInt16LE(start + node.high) * 0x1_0000;
      const nodeFlags = bytes.readUInt16LE(start + node.flags);
      if (flags === kind.branch) {
        taken += even(keyEnd - start);
        walk(low + nodeFlags * 0x1_0000_0000, depth + 1, onFree);
        continue;
      }
      const isBig = nodeFlags === flagBig;
      if (nodeFlags !== 0 && !isBig) throw fault(number, 'has an entry of no kind that can be here');
      const end = keyEnd + (isBig ? bigBytes : low);
      if (end > pageBytes) throw fault(number, 'has a value that is longer than it');
      taken += even(end - start);
      if (onFree === undefined) entries++;
      if (isBig) overflow(Number(bytes.readBigUInt64LE(keyEnd)), low);
      const key = bytes.subarray(start + node.key, keyEnd);
      if (before !== undefined && onFree === undefined && Buffer.compare(before, key) >= 0)
        throw fault(number, 'has keys that are not in order');
      before = key;
      onFree?.(bytes.subarray(keyEnd, end), isBig);
    }
    if (taken !== room - upper) throw fault(number, 'has more or less in it than it says');
  };

  const overflow = (number: number, size: number): void => {
    if (number < 2 || number > lastPage) throw fault(number, 'is outside of it');
    const bytes = load(number);
    const count = bytes.readUInt32LE(page.pages);
    const isWhole = count > 0 && page.body + size <= count * pageBytes;
    if (bytes.readUInt16LE(page.flags) !== kind.overflow || !isWhole) throw fault(number, 'is damaged');
    claim(number, count);
  };

  const load = (number: number): Buffer => {
    if (number < 2 || number > lastPage) throw fault(number, 'is outside of it');
    readSync(descriptor, read, 0, pageBytes, number * pageBytes);
    const isOwn = Number(read.readBigUInt64LE(0)) === number;
    if (!isOwn || read.readBigUInt64LE(page.transaction) > transaction)
      throw fault(number, 'is not what it has to be');
    return read;
  };

  try {
    if (mainRoot !== undefined) walk(mainRoot, 0);
    if (BigInt(entries) !== meta.mainEntries)
      return `${meta.mainEntries - BigInt(entries)} of its entries are missing`;
    if (freeRoot !== undefined)
      walk(freeRoot, 0, (list, isLong) => {
        for (const number of isLong ? [] : freePages(list, lastPage))
          if (number < 2 || number > lastPage || used.has(number))
            throw fault(number, 'is called free, and is not');
      });
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

const even = (bytes: number): number => bytes + (bytes % 2);

/** How many numbers, then those: of a free page, 0 for none, or below 0 for how many pages there are from the next number on. */
function* freePages(list: Buffer, lastPage: number): Generator<number> {
  const count = list.length < 8 ? 0 : Number(list.readBigUInt64LE(0));
  if (8 * (count + 1) > list.length) throw new Error('its list of free pages is damaged');
  for (let n = 1; n <= count; n++) {
    const number = Number(list.readBigInt64LE(8 * n));
    if (number > 0) yield number;
    if (number >= 0) continue;
    const first = n === count ? 0 : Number(list.readBigInt64LE(8 * ++n));
    if (-number > lastPage) throw new Error('its list of free pages is damaged');
    for (let one = first; one < first - number; one++) yield one;
  }
}
