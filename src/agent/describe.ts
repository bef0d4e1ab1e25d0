/** What this host says of itself. It helps operators to recognise it and decides nothing. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { readFileSync } from 'node:fs';
import os from 'node:os';
import si from 'systeminformation';
import type { Clock } from '../model/clock.js';
import type { NodeDescriptionSchema } from '../proto/gen/inro/v1/common_pb.js';
import { agentLimits } from './limits.js';
import { version } from '../system/version.js';

export type Description = MessageInitShape<typeof NodeDescriptionSchema>;

/** Asks systeminformation, but never longer than `describeMs`: some of its questions start other programs. */
export async function describeHost(clock: Clock): Promise<Description> {
  const basics: Description = {
    hostname: os.hostname(),
    platform: os.platform(),
    architecture: os.arch(),
    kernel: os.release(),
    cpus: os.cpus().length,
    memoryBytes: BigInt(os.totalmem()),
    agentVersion: version,
  };
  const enough = new AbortController();
  const asked = Promise.all([si.osInfo(), si.mem()]).then(([system, memory]) => ({
    ...basics,
    distribution: `${system.distro} ${system.release}`.trim(),
    architecture: system.arch,
    swapBytes: BigInt(memory.swaptotal),
  }));
  try {
    return await Promise.race([asked, clock.sleep(agentLimits.describeMs, enough.signal).then(() => basics)]);
  } catch {
    return basics; // what the host cannot say is left out; nothing depends on it
  } finally {
    enough.abort();
  }
}

/** Changes with each boot: a session key is proved for one boot of one node. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}
