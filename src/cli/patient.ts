/** For commands that follow something: a manager that is restarted is waited for. */
import { InroError } from '../model/error.js';
import { systemClock } from '../system/clock.js';
import { warn } from './print.js';

const lookMs = 1_000;
const maxFailures = 60;

export class Patient {
  #answered = false;

  /** @throws what the first call throws; later what lasts for a minute, or will not pass. */
  async ask<T>(call: () => Promise<T>): Promise<T> {
    for (let failures = 0; ;) {
      try {
        const answer = await call();
        this.#answered = true;
        return answer;
      } catch (error) {
        const isTemporary = error instanceof InroError && error.kind === 'temporary';
        if (!this.#answered || !isTemporary || ++failures > maxFailures) throw error;
        if (failures === 1) warn('the manager does not answer; it goes on when it does');
        await systemClock.sleep(lookMs);
      }
    }
  }
}
