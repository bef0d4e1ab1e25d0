/** What an agent notes of its values and tasks for the agent that takes its arena over. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { AssignedTaskSchema, type AssignedTask } from '../proto/gen/inro/v1/dispatcher_pb.js';
import { HeldNoteSchema, type HeldNote } from '../proto/gen/inro/v1/inheritance_pb.js';

type Held = Pick<HeldNote, 'secretId' | 'version' | 'ciphertextDigest'> & { leaseShiftMs: number };

export function heldNote(held: Held): Uint8Array {
  const { secretId, version, ciphertextDigest } = held;
  const leaseShiftMs = BigInt(held.leaseShiftMs);
  return toBinary(
    HeldNoteSchema,
    create(HeldNoteSchema, { secretId, version, ciphertextDigest, leaseShiftMs }),
  );
}

/** An empty one for what is no note. */
export function readHeldNote(bytes: Uint8Array): HeldNote {
  try {
    return fromBinary(HeldNoteSchema, bytes);
  } catch {
    return create(HeldNoteSchema);
  }
}

export function taskNote(task: AssignedTask): Uint8Array {
  return toBinary(AssignedTaskSchema, task);
}

export function readTaskNote(bytes: Uint8Array): AssignedTask | undefined {
  try {
    return fromBinary(AssignedTaskSchema, bytes);
  } catch {
    return undefined;
  }
}
