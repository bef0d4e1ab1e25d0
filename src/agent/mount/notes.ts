/** What stands beside the nodes of a mount for whoever takes it over: whose they are. */
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { NodeNoteSchema, type NodeNote } from '../../proto/gen/inro/v1/inheritance_pb.js';
import type { PublishedFile } from './driver.js';

/** The node that an agent is of its cluster. */
export interface Owner {
  clusterId: string;
  nodeId: string;
}

export function agentNote({ clusterId, nodeId }: Owner = { clusterId: '', nodeId: '' }): Uint8Array {
  return note({ case: 'agent', value: { clusterId, nodeId } });
}

export function serviceNote(serviceId: string): Uint8Array {
  return note({ case: 'service', value: { serviceId } });
}

export function taskNote(serviceId: string): Uint8Array {
  return note({ case: 'task', value: { serviceId } });
}

export function generationNote(task: Uint8Array = new Uint8Array()): Uint8Array {
  return note({ case: 'generation', value: { task } });
}

export function fileNote(
  taskId: string,
  { target, source, about, note: value = new Uint8Array() }: PublishedFile,
): Uint8Array {
  return note({ case: 'file', value: { taskId, target, source, value, ...about } });
}

/** Nothing for what is no note. */
export function readNote(bytes: Uint8Array): NodeNote['note'] {
  try {
    return fromBinary(NodeNoteSchema, bytes).note;
  } catch {
    return { case: undefined };
  }
}

function note(one: NonNullable<MessageInitShape<typeof NodeNoteSchema>['note']>): Uint8Array {
  return toBinary(NodeNoteSchema, create(NodeNoteSchema, { note: one }));
}
