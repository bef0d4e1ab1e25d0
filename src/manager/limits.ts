/** The manager's bounds and periods. */
const dayMs = 24 * 60 * 60 * 1000;

export const managerLimits = {
  /** 64 bytes for each session and some for its own keys. Who may lock less than four times as much gets a quarter of that. */
  arenaBytes: 4 * 1024 * 1024,
  /** But so much at least, if it may be locked. */
  smallArenaBytes: 64 * 1024,
  /** Locked memory that is not worth having: below it the whole arena is unlocked. */
  minLockedBytes: 16 * 1024,
  /** Swarm's period; an agent draws each beat from +-10 % of it. */
  heartbeatPeriodMs: 5_000,
  /** Periods without a beat after which a node is down. */
  missedBeats: 3,
  /** A node that has not come back after a manager's start is down after so many periods. */
  missedBeatsAfterStart: 6,
  leaseMs: dayMs,
  /** How much later than by this manager's clock a node's lease may end: a day at 500 ppm, and something. */
  leaseDriftMs: 60_000,
  /** Of shorter leases less. */
  minLeaseDriftMs: 1_000,
  leaseDriftPpm: 700,
  /** How often it is noted when nodes were heard last: after a crash their leases are known no better. */
  noteSeenMs: 10 * 60_000,
  /** So many heartbeats may the agent of a stream be silent, asked whether it is there, before another one takes its place. */
  clonePatienceBeats: 2,
  /** How often it is noted that the same one comes again. */
  cloneAlarmGapMs: 60_000,
  /** How long an agent may let what it is sent lie, before its stream ends. */
  takeMs: 30_000,
  /** Streams that one node may begin. */
  streamPace: { atOnce: 20, perSecond: 1 },
  /**
   * What one node may say, in as many units as it costs: 1 for a message, for each receipt, and for ten of whatever else is in it. At
   * once all the receipts that an agent keeps; beyond that it is listened to more slowly.
   */
  wordsPace: { atOnce: 12_000, perSecond: 500 },
  /** Each costs a signature's check; the others have a turn in between. */
  receiptsPerTurn: 50,
  /** How long a stream may take to say Hello. */
  helloMs: 10_000,
  /** Content keys that are wrapped anew in one commit, when the data key is replaced. */
  rewrapsPerCommit: 200,
  dataKeyRetryMs: 10_000,
  valueExpiryCheckMs: 5_000,
  /** So long before its end a value is warned of. */
  valueExpiryWarningMs: 7 * dayMs,
  maxHoldings: 100_000,
  maxStatusesPerMessage: 10_000,
  /** Each costs a signature's check. */
  maxReceiptsPerMessage: 2_000,
  maxTasksPerReceipt: 8,
  /** That are kept, of the whole cluster; about 400 bytes each. */
  maxReceipts: 10_000,
  maxReceiptsPerPage: 1_000,
  /** Runs of its agent for which a node's receipts and counts of accesses are told from repetitions. */
  maxRunsPerNode: 8,
  /** How long counts of accesses wait for others, to be written together: each commit waits for the disk. */
  gatherCountsMs: 1_000,
  maxCountsPerBatch: 2_000,
  /** Beyond it batches are not taken, and come again with the next beat; about 300 bytes each. */
  maxWaitingCounts: 100_000,
  maxCountsPerCommit: 2_000,
  /** Of one kind of reader in one batch. */
  maxAccessesPerCount: 2 ** 40,
  /** Of what a node calls a reader. */
  maxWorkloadChars: 255,
  /** Whose accesses to one version on one node are kept one by one; about 200 bytes each. */
  maxReadersPerRecord: 16,
  /** Of one secret, whose accesses on one node are kept: those with the highest numbers. */
  maxReadVersionsPerNode: 8,
  /** In one answer; about 300 bytes each. */
  maxShownReaders: 10_000,
  /** Of what is noted about nodes' copies. */
  maxStepsPerCommit: 1_000,
  /** Made to measure; about 200 bytes each, more with labels. */
  maxJoinTokens: 1_000,
  maxTokenUses: 10_000,
  minTokenTtlMs: 1_000,
  maxTokenTtlMs: 90 * dayMs,
  /** How long a token that is of no use any more is still shown. */
  keepEndedTokenMs: dayMs,
  /** Wrong join tokens of one address within `wrongTokensMs`, after which it is not answered until that time is over. */
  maxWrongTokens: 10,
  wrongTokensMs: 60_000,
  /** Whose wrong tokens are counted; beyond it those that were wrong least recently are forgotten. */
  maxWatchedAddresses: 10_000,
  maxOperators: 1_000,
  minOperatorTtlMs: 5 * 60_000,
  maxOperatorTtlMs: 3650 * dayMs,
  /** How long a certificate that its operator has renewed is still accepted. */
  formerOperatorMs: 10 * 60_000,
  maxOperatorRenewals: 10,
  operatorRenewalsMs: 60 * 60_000,
  /** Calls of one operator, or of one address without a certificate, that are refused within that time and told to the log. */
  maxRefusedCalls: 10,
  refusedCallsMs: 60_000,
  /** Of what a call is about, in the log. */
  maxObjectChars: 128,
  /** Hosts that wait for approval. */
  /** On one distributed store. */
  maxManagers: 16,
  managerAddressesMs: 5_000,
  distributedRetryMs: 2_000,
  leadAtOnceMs: 2_000,
  /** Calls that are handed to the manager that leads. */
  maxForwardMs: 10 * 60 * 1000 + 10_000,
  maxPendingNodes: 1_000,
  pendingNodeMs: dayMs,
  /** Enrolments in one commit. */
  maxEnrolmentsPerCommit: 64,
  /** Some 300 bytes each; beyond it the oldest go. */
  maxAuditLines: 100_000,
  maxAuditLinesPerCommit: 200,
  maxAuditLinesPerPage: 500,
  maxAuditTextChars: 300,
  /** That could not be written; beyond it they are counted. */
  maxUnwrittenAuditLines: 1_000,
  /** Of strangers (wrong join tokens, calls without a certificate), that have a line of their own in so many ms; the others are counted. */
  strangerLines: 60,
  strangerLinesMs: 60_000,
  /** That are remembered; some 500 bytes each. */
  maxEvents: 4_096,
  maxEventsPerPage: 500,
  /** How often it is looked whether nodes have come or gone. */
  nodeEventCheckMs: 2_000,
  /** One call of an external CA, from its connection to the end of its answer. */
  externalCaMs: 5_000,
  maxExternalCaAnswerBytes: 64 * 1024,
  /** Calls of one URL at a time; more of them wait. */
  maxExternalCaCalls: 8,
  /** One host's request: it is decided again when its node was another one meanwhile. */
  maxEnrolmentTries: 8,
  /** Nodes that were removed or rejected, until their certificates end; beyond it those go first that end first. */
  maxRefused: 10_000,
  /** How long a node that is removed may take to wipe and to say so. */
  removalWaitMs: 10_000,
  /** How often is looked for what has expired. */
  sweepMs: 60_000,
  maxErrorChars: 1_000,
  /** Of who ordered a revocation, as his terminal says it. */
  maxOperatorChars: 128,
  /** Of each text in what a node says of itself. */
  maxDescriptionChars: 255,
  /** Between two certificates for one node. */
  renewalGapMs: 60_000,
  /** The same, for a node that still shows the certificate before: the answer may not have reached it. */
  renewalRepeatMs: 5_000,
  /** Nodes whose last renewal is remembered; more in one `renewalGapMs` are refused for a while. */
  maxRecentRenewals: 100_000,
  /** So long before the end of a CA it is said each day. */
  caEndWarningMs: 180 * dayMs,
  caEndCheckMs: dayMs,
  /** That the cluster has, or had, and that are remembered. */
  maxCas: 8,
  /** How long a rotation of the CA waits for nodes that are away; who ends it earlier does so while it is under way. */
  minRotationMs: 60_000,
  maxRotationMs: 365 * dayMs,
  rotationCheckMs: 1_000,
  /** That are told to renew and have not, as Swarm has it (swarmkit ca/reconciler.go IssuanceStateRotateMaxBatchSize). */
  maxRenewingNodes: 30,
  /** In one answer or line of the log. */
  maxShownNodes: 1_000,
  /** Certificates of which it is remembered who signed them. */
  maxKnownSigners: 10_000,
  /** How often a manager looks whether its own certificate is due. */
  ownRenewalCheckMs: 60_000,
  /** Swarm's restart delay: a failed task is replaced after it. */
  restartDelayMs: 5_000,
  /** How long a container that starts first has to run before the one before it is stopped. */
  startFirstMs: 1_000,
  /** Tasks of one service that are written in one commit. */
  maxTasksPerCommit: 60,
  /** How often it is looked which nodes are there. */
  nodeCheckMs: 1_000,
  /** When many come at once: between two looks, times what one takes. */
  nodeLookPause: 4,
  /** Losses of a node within this time, from the second on, keep new tasks away from it for a while, doubled each time. */
  flapWindowMs: 10 * 60_000,
  firstSteadyMs: 10_000,
  /** Of one node, that are remembered. */
  maxReturns: 16,
  maxSteadyMs: 5 * 60_000,
  maxChangesAtOnce: 256,
  /** Ended tasks that are kept for each slot, for `service ps`. */
  endedTasksPerSlot: 4,
  maxWaitMs: 10 * 60 * 1000,
  stopGraceMs: 2_000,
} as const;
