/** The agent's bounds and periods. */
export const agentLimits = {
  /** After its stop grace, until the engine has said that a container is gone. */
  containerEndMs: 15_000,
  /** When the agent stops: its containers end first, and may use their secrets for so long. */
  containersStopMs: 15_000,
  /** For each step of a mount's way to another process. */
  handOverMs: 10_000,
  /** How often what another process is about to give up is tried again. */
  handOverRetryMs: 20,
  /** For who may lock so much; less of it and of `maxNodes` otherwise (arena_size.ts). */
  arenaBytes: 32 * 1024 * 1024,
  /** All locked memory of an agent, without which it does not start. */
  minLockedBytes: 2 * 1024 * 1024,
  /** What the threads that answer lock beside the arena: 196 KiB each. */
  replyBuffersBytes: 2 * 196 * 1024,
  /** What one assignment may hold back until its commit: one arena, as ciphertext, and what stands around it. */
  maxPendingBytes: 40 * 1024 * 1024,
  /** Files, links and directories of the mount, at 128 bytes each of memory that is touched as it is used. */
  maxNodes: 131_072,
  maxTasks: 10_000,
  /** In one assignment. */
  maxRevoked: 100_000,
  maxManagers: 16,
  /** How long a manager may take from the connection to its Welcome. */
  welcomeMs: 20_000,
  /** After a rotation, descriptors that were open read on for so long. */
  graceMs: 10_000,
  /** Swarm's back-off: base + 2 x previous, up to the maximum; the delay is drawn from [0, back-off). */
  backoffBaseMs: 100,
  backoffMaxMs: 8_000,
  /** How often a host that waits for approval asks. */
  approvalPollMs: 2_000,
  /** How long a node that was told that it is none any more waits at the most before it asks again. */
  expelledRetryMs: 10 * 60_000,
  /** Each beat is drawn from +- this part of the period. */
  heartbeatJitter: 0.1,
  /** Periods without an answer after which the stream is given up. */
  missedAnswers: 3,
  /** Beats whose answers are still waited for; older ones extend no lease. */
  maxUnansweredBeats: 64,
  /** Not acknowledged yet, about 500 bytes each. */
  maxQueuedReceipts: 10_000,
  /** Of them, what lies in the arena for a successor, about 90 bytes each: the newest. */
  maxNotedReceipts: 128,
  /** That a receipt names, of those that the copy was for: the latest. */
  maxTasksPerReceipt: 8,
  /** How long an agent that stops waits for a manager to take its last receipts. */
  lastReceiptsMs: 1_000,
  /** About 70 bytes each: they must fit one message; what is left out is delivered again. */
  maxHoldings: 10_000,
  /** About 250 bytes each. */
  maxReceiptsPerMessage: 2_000,
  /** Up to `maxErrorChars` each. */
  maxStatusesPerMessage: 500,
  maxErrorChars: 500,
  leaseCheckMs: 1_000,
  /** How often it is looked whether workloads that are attached are still there. */
  workloadCheckMs: 1_000,
  /** How long units that start wait for the first assignment after the agent's start: less than systemd waits for them. */
  firstAssignmentMs: 60_000,
  /** Records of accesses on disk: so many files of so many bytes. */
  auditBytes: 8 * 1024 * 1024,
  auditFiles: 4,
  /** Entries that a slow listener has not taken yet; it is cut off at more. */
  maxUntakenEntries: 10_000,
  /** About 150 bytes each, 900 at the most: a batch is one message. */
  maxCountsPerBatch: 1_000,
  /** Of what a reader is called. */
  maxWorkloadChars: 255,
  /** How often the clocks are compared with the time at which the certificate is due. */
  renewalCheckMs: 60_000,
  /** How often it is looked whether a session can be tried again that was not worth a try. */
  obstacleCheckMs: 60_000,
  /** After a renewal that came to nothing: as with streams, up to a part of the certificate's life and to Swarm's maximum. */
  renewalBackoffBaseMs: 5_000,
  renewalBackoffMaxMs: 60 * 60_000,
  renewalBackoffMaxPart: 1 / 20,
  /** Between two times that the workloads of a task are told of changes. */
  changeGapMs: 5_000,
  /** How long a hook may take. */
  hookMs: 60_000,
  /** And a unit of systemd to restart: more than it may take to stop, and to start. */
  unitRestartMs: 200_000,
  describeMs: 5_000,
  stopGraceMs: 1_000,
} as const;
