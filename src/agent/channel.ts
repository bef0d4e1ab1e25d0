import type { MessageInitShape } from '@bufbuild/protobuf';
import type { AgentMessageSchema, ManagerMessage } from '../proto/gen/inro/v1/dispatcher_pb.js';
import type { Channel } from '../rpc/stream.js';

/** What an agent speaks with a manager through; a test or a simulation puts its own in its place. */
export type AgentChannel = Channel<MessageInitShape<typeof AgentMessageSchema>, ManagerMessage>;
