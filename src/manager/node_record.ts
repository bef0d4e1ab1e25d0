/** What a node says of itself, made fit to be kept: a node must not fill the store or upset a terminal. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { printable } from '../model/name.js';
import type { NodeDescription, NodeDescriptionSchema } from '../proto/gen/inro/v1/common_pb.js';
import { managerLimits } from './limits.js';

export function keptDescription(said: NodeDescription): MessageInitShape<typeof NodeDescriptionSchema> {
  const text = (value: string): string => printable(value, managerLimits.maxDescriptionChars);
  const { cpus, memoryBytes, swapBytes } = said;
  return {
    hostname: text(said.hostname),
    platform: text(said.platform),
    architecture: text(said.architecture),
    distribution: text(said.distribution),
    kernel: text(said.kernel),
    agentVersion: text(said.agentVersion),
    cpus,
    memoryBytes,
    swapBytes,
  };
}
