/**
 * A backup's file: a line that says what it is, the length of the head (4 bytes, big endian), the head, then boxes, each with its length
 * before it (4 bytes, big endian). What is in the boxes, one after the other, are items (backup.proto), each with its length before it.
 */
import { fromBinary, toBinary, type MessageShape } from '@bufbuild/protobuf';
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import { sha256 } from '../crypto/signing.js';
import { InroError } from '../model/error.js';
import {
  BackupHeadSchema,
  BackupItemSchema,
  type BackupHead,
  type BackupItem,
} from '../proto/gen/inro/v1/backup_pb.js';

export const backupMagic = Buffer.from('INRO-BACKUP-1\n');
const lengthBytes = 4;
/** It names a cluster and has one key. */
export const maxHeadBytes = 64 * 1024;
/** A version's ciphertext, and what stands around it. */
const maxItemBytes = 4 * 1024 * 1024;

export function withLength(bytes: Uint8Array): Buffer {
  const length = Buffer.alloc(lengthBytes);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

export function headBytes(head: MessageShape<typeof BackupHeadSchema>): Uint8Array {
  return toBinary(BackupHeadSchema, head);
}

export function digestOfHead(bytes: Uint8Array): Uint8Array {
  return sha256(bytes);
}

export function itemBytes(item: BackupItem): Uint8Array {
  return new BinaryWriter().bytes(toBinary(BackupItemSchema, item)).finish();
}

/** What comes in pieces of any size. */
export class PieceReader {
  readonly #pieces: AsyncIterator<Uint8Array>;
  #held: Buffer = Buffer.alloc(0);

  constructor(pieces: AsyncIterable<Uint8Array>) {
    this.#pieces = pieces[Symbol.asyncIterator]();
  }

  /** @returns undefined at the end, when nothing is left. @throws bad_input when it ends in between. */
  async take(bytes: number): Promise<Buffer | undefined> {
    while (this.#held.length < bytes) {
      const { value, done } = await this.#pieces.next();
      if (done === true) break;
      this.#held = Buffer.concat([this.#held, value]);
    }
    if (this.#held.length === 0 && bytes > 0) return undefined;
    if (this.#held.length < bytes) throw cut();
    const taken = this.#held.subarray(0, bytes);
    this.#held = this.#held.subarray(bytes);
    return taken;
  }

  /** @throws bad_input when it is longer than `most`. */
  async takeWithLength(most: number): Promise<Buffer | undefined> {
    const length = (await this.take(lengthBytes))?.readUInt32BE();
    if (length === undefined) return undefined;
    if (length > most) throw damaged(`a part of it has ${length} bytes`);
    const taken = await this.take(length);
    if (taken === undefined && length > 0) throw cut();
    return taken ?? Buffer.alloc(0);
  }
}

/** @throws bad_input */
export function readHead(bytes: Uint8Array): BackupHead {
  try {
    return fromBinary(BackupHeadSchema, bytes);
  } catch {
    throw damaged('its head cannot be read');
  }
}

/** @param contents of the boxes, one after the other. @throws bad_input */
export async function* itemsIn(contents: AsyncIterable<Uint8Array>): AsyncGenerator<BackupItem> {
  let held: Buffer = Buffer.alloc(0);
  for await (const content of contents) {
    held = Buffer.concat([held, content]);
    for (;;) {
      const whole = firstIn(held);
      if (whole === undefined) break;
      held = held.subarray(whole.end);
      yield whole.item;
    }
  }
  if (held.length > 0) throw cut();
}

function firstIn(held: Buffer): { item: BackupItem; end: number } | undefined {
  // A varint of a length that is allowed has four bytes at most.
  const head = held.subarray(0, 4);
  if (!head.some((byte) => byte < 0x80)) {
    if (head.length === 4) throw damaged('an item of it is too large');
    return undefined;
  }
  const reader = new BinaryReader(head);
  const length = reader.uint32();
  if (length > maxItemBytes) throw damaged(`an item of it has ${length} bytes`);
  const end = reader.pos + length;
  if (held.length < end) return undefined;
  try {
    return { item: fromBinary(BackupItemSchema, held.subarray(reader.pos, end)), end };
  } catch {
    throw damaged('an item of it cannot be read');
  }
}

export function damaged(how: string): InroError {
  return new InroError('bad_input', `the backup is damaged: ${how}`, {
    remedy: 'take another copy of it, or another backup; nothing was restored',
  });
}

function cut(): InroError {
  return damaged('its end is missing');
}
