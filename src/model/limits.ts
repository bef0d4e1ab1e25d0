/** Every bound of the model, with its unit in its name. Reaching one is a clear error, never silence. */
export const limits = {
  /** Swarm's bound for names of secrets and services. */
  maxNameChars: 64,
  /** Of an operator. */
  maxGrants: 64,
  /** Kubernetes' bound for a Secret; Swarm stops at 511,999 bytes. */
  maxSecretBytes: 1024 * 1024,
  /** A target is one file name (NAME_MAX). */
  maxTargetBytes: 255,
  maxLabels: 64,
  maxLabelKeyChars: 128,
  maxLabelValueChars: 1024,
  maxReferencesPerService: 256,
  maxReplicas: 10_000,
  maxConstraints: 16,
  maxOwnerChars: 64,
  /** Of an argument or a variable of a container. */
  maxContainerTextChars: 8192,
  /** Arguments, variables and mounts of a container. */
  maxContainerTexts: 256,
  maxStopGraceMs: 60 * 60 * 1000,
  /** Between two tasks of an update, and after the last one. */
  maxUpdatePauseMs: 24 * 60 * 60 * 1000,
  maxDetachGraceMs: 24 * 60 * 60 * 1000,
  /** Versions are numbered in 32 bits. */
  maxVersion: 2 ** 32 - 1,
} as const;
