/**
 * Sees to what changed files ask for: one thing after the other for each task, and not again within a gap, so that many rotations
 * in a row are one restart. What is due stands in the arena until it is done: a successor sees to it.
 */
import type { Logger } from 'pino';
import type { Clock } from '../../model/clock.js';
import { asInroError } from '../../model/error.js';
import { parseOnChange } from '../../model/on_change.js';
import type { HostTasks } from '../host_tasks.js';
import { agentLimits } from '../limits.js';
import { act, type ActionParts } from './actions.js';

export interface ChangesParts extends ActionParts {
  tasks: HostTasks;
  clock: Clock;
  log: Logger;
}

export class Changes {
  readonly #parts: ChangesParts;
  /** By task. */
  readonly #busy = new Set<string>();
  /** By task: until when nothing is done for it, ms of boot time. */
  readonly #restsUntilMs = new Map<string, number>();
  readonly #over: AbortSignal;

  /** @param over nothing is begun any more, and what goes on is not waited for. */
  constructor(parts: ChangesParts, over: AbortSignal) {
    this.#parts = parts;
    this.#over = over;
  }

  /** To be called whenever tasks have changed. */
  look(): void {
    const { tasks } = this.#parts;
    const all = new Map(tasks.list().map((task) => [task.assigned.id, task]));
    for (const id of this.#restsUntilMs.keys()) if (!all.has(id)) this.#restsUntilMs.delete(id);
    for (const [id, { due }] of all) {
      if (due.size === 0 || this.#busy.has(id) || this.#over.aborted || tasks.stopped) continue;
      this.#busy.add(id);
      void this.#see(id).finally(() => {
        this.#busy.delete(id);
        this.look();
      });
    }
  }

  async #see(taskId: string): Promise<void> {
    const { tasks, clock, log } = this.#parts;
    const restMs = (this.#restsUntilMs.get(taskId) ?? 0) - clock.boottimeMs();
    if (restMs > 0) await clock.sleep(restMs, this.#over);
    const task = tasks.list().find(({ assigned }) => assigned.id === taskId);
    if (task === undefined || this.#over.aborted) return;
    const { due, generation } = task;
    const about = { task: taskId, service: task.assigned.serviceName };
    const failures: string[] = [];
    for (const text of due.keys()) {
      try {
        await act(parseOnChange(text), task, this.#parts);
        log.info({ ...about, action: text }, 'told of a change');
      } catch (error) {
        log.error({ ...about, action: text, err: error }, 'could not be told of a change');
        failures.push(asInroError(error).message);
      }
    }
    if (this.#over.aborted) return; // a successor does it again
    this.#restsUntilMs.set(taskId, clock.boottimeMs() + agentLimits.changeGapMs);
    tasks.changed(taskId, generation, {
      action: [...due.keys()].join(', '),
      error: failures.join('; '),
      atMs: clock.now(),
    });
  }
}
