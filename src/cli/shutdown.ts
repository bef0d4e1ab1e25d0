/**
 * Ending a long-running command: TERM, INT or a lost terminal begin it, once; a second wish after half a
 * second forces it. (Under npm, Ctrl-C arrives twice at once: from the terminal and from npm.)
 */
const repeatMs = 500;
const forceMs = 15_000;

/** Resolves at the first signal. */
export function untilStopped(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let firstMs = 0;
    const onSignal = (signal: NodeJS.Signals): void => {
      if (firstMs === 0) {
        firstMs = Date.now();
        setTimeout(() => force(signal, 'the clean stop takes too long'), forceMs).unref();
        resolve(signal);
      } else if (Date.now() - firstMs > repeatMs) {
        force(signal, 'stopped by force');
      }
    };
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  });
}

function force(signal: NodeJS.Signals, why: string): never {
  process.stderr.write(`inro: ${why} (${signal}); the next start cleans up what is left\n`);
  process.exit(1);
}
