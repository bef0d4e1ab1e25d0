/** Bounds of everything that crosses a socket. */
export const rpcLimits = {
  /** One value of 1 MiB as a box, and what stands around it. */
  maxMessageBytes: 1280 * 1024,
  /** Answers to an operator: long lists. */
  maxOperatorMessageBytes: 64 * 1024 * 1024,
  maxStreamsPerConnection: 64,
  /** Of one stream, that the other side's window has no room for; who sends waits then. */
  maxUnsentMessages: 4,
  /** Calls that answer once. */
  callMs: 10_000,
  connectMs: 10_000,
  /** To reach the manager that leads, where another one has said which. */
  redirectMs: 3_000,
  /** How long a call waits for a manager that leads; an election takes up to 12 s. */
  leaderMs: 25_000,
  leaderPauseMs: 500,
  /** Between a connection to a TLS port and the end of its handshake. */
  handshakeMs: 10_000,
  /** How long a connection without a call is kept. */
  idleMs: 60_000,
  /** How long the other side of a stream may take to hear that it is over. */
  closeMs: 1_000,
  /** A connection that is silent for so long is asked whether it still lives. */
  keepaliveMs: 20_000,
  keepaliveAnswerMs: 10_000,
} as const;
