/** inro manager data-key: the key that content keys are kept under, and its replacement. */
import { Control, type DataKey } from '../../proto/gen/inro/v1/control_pb.js';
import { call } from '../../rpc/client.js';
import { systemClock } from '../../system/clock.js';
import { withManager, type ManagerOption } from '../operator.js';
import { ago, iso, printFacts, printJson, warn } from '../print.js';

interface DataKeyOptions extends ManagerOption {
  rotate?: boolean;
  wait?: boolean;
  json?: boolean;
}

const lookEveryMs = 200;
const sayEveryMs = 5_000;

export async function managerDataKey(options: DataKeyOptions): Promise<void> {
  const found = await withManager(options, async (manager) => {
    let state = await call(manager, Control, options.rotate === true ? 'rotateDataKey' : 'getDataKey', {});
    let saidMs = systemClock.boottimeMs();
    while (options.wait === true && state.rotating) {
      await systemClock.sleep(lookEveryMs);
      state = await call(manager, Control, 'getDataKey', {});
      if (systemClock.boottimeMs() - saidMs < sayEveryMs) continue;
      saidMs = systemClock.boottimeMs();
      warn(progressOf(state));
    }
    return state;
  });
  if (options.json === true) return printJson(shown(found));
  printFacts([
    ['Data key', `since ${iso(found.sinceMs)} (${ago(found.sinceMs)})`],
    ['Former key', found.rotating ? progressOf(found) : 'none: everything is under the present one'],
  ]);
}

function progressOf({ done, total, lastError }: DataKey): string {
  const why = lastError === '' ? '' : `; it waits: ${lastError}`;
  return `${done} of ${total} versions are under the present one${why}`;
}

function shown({ sinceMs, rotating, done, total, lastError }: DataKey) {
  return { since: iso(sinceMs), rotating, done, total, lastError };
}
