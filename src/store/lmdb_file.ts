/**
 * A look at an lmdb file before it is mapped: lmdb trusts it, and a cut or foreign one ends the process by
 * SIGBUS or SIGSEGV instead of an error. Layout: liblmdb/mdb.c, MDB_page and MDB_meta, data version 2.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

const magic = 0xbeefc0de;
const dataVersion = 2;
const at = { magic: 24, version: 28, pageBytes: 48, freeRoot: 88, mainRoot: 136, lastPage: 144 } as const;
const noPage = 0xffff_ffff_ffff_ffffn;
const metaBytes = 160;
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
    const pages = Math.floor(size / first.pageBytes);
    const lastPage = Math.max(first.lastPage, second.lastPage);
    const needed = Math.max(
      lastPage - Math.min(unwrittenPages, lastPage >> 2),
      ...first.roots,
      ...second.roots,
    );
    return pages <= needed ? `it is cut: ${pages} of ${lastPage + 1} pages are there` : undefined;
  } finally {
    closeSync(descriptor);
  }
}

interface Meta {
  pageBytes: number;
  lastPage: number;
  /** Pages at which its trees begin. */
  roots: number[];
}

function readMeta(descriptor: number, position: number): Meta | undefined {
  const meta = Buffer.alloc(metaBytes);
  if (readSync(descriptor, meta, 0, metaBytes, position) !== metaBytes) return undefined;
  if (meta.readUInt32LE(at.magic) !== magic || meta.readUInt32LE(at.version) !== dataVersion)
    return undefined;
  const roots = [at.freeRoot, at.mainRoot].map((offset) => meta.readBigUInt64LE(offset));
  return {
    pageBytes: meta.readUInt32LE(at.pageBytes),
    lastPage: Number(meta.readBigUInt64LE(at.lastPage)),
    roots: roots.filter((root) => root !== noPage).map(Number),
  };
}
