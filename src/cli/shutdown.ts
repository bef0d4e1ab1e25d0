/**
 * Ending a long-running command: TERM, INT or a lost terminal begin it, once; a second wish after half a
 * second forces it. (Under npm, Ctrl-C arrives twice at once: from the terminal and from npm.)
 */
import { closeSync, constants, openSync } from 'node:fs';

const repeatMs = 500;
const forceMs = 15_000;

/** SIGHUP as a daemon's order to read its settings again. What comes before it can be followed is followed then. */
export class Hangup {
  #answer: (() => void) | undefined;
  #missed = false;

  arrived(): void {
    if (this.#answer === undefined) this.#missed = true;
    else this.#answer();
  }

  answerWith(answer: () => void): void {
    this.#answer = answer;
    if (this.#missed) answer();
  }
}

/** Resolves at the first signal. @param hangup takes SIGHUP where it does not mean that our terminal is gone. */
export function untilStopped(hangup?: Hangup): Promise<NodeJS.Signals> {
  const beganOnTerminal = hasTerminal();
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
    process.on('SIGINT', onSignal);
    process.on('SIGTERM', onSignal);
    process.on('SIGHUP', (signal) => {
      const terminalLost = beganOnTerminal && !hasTerminal();
      if (hangup === undefined || terminalLost) onSignal(signal);
      else hangup.arrived();
    });
  });
}

/** The kernel takes a process's controlling terminal away before it says so by SIGHUP. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', constants.O_RDWR | constants.O_NOCTTY));
    return true;
  } catch {
    return false;
  }
}

function force(signal: NodeJS.Signals, why: string): never {
  process.stderr.write(`inro: ${why} (${signal}); the next start cleans up what is left\n`);
  process.exit(1);
}
