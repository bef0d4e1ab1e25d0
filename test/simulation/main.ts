/**
 * Simulations by the number:
 *
 *   npm run simulate -- [--seeds 10000] [--from 1]     many, one after the other
 *   npm run simulate -- --seed 4711 [--trace] [--log]  one, with all that happens
 */
import { parseArgs } from 'node:util';
import { simulate } from './simulate.js';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '10000' },
    from: { type: 'string', default: '1' },
    seed: { type: 'string' },
    trace: { type: 'boolean', default: false },
    log: { type: 'boolean', default: false },
  },
});

// Most errors in it are expected, and nobody reads where they come from.
if (!values.log) Error.stackTraceLimit = 0;
const print = (line: string): void => void process.stdout.write(`${line}\n`);
if (values.seed !== undefined) {
  const more = { ...(values.trace ? { trace: print } : {}), ...(values.log ? { logTo: (line: string) => print(line.trimEnd()) } : {}) };
  const { violation, ...result } = await simulate({ seed: Number(values.seed), ...more });
  print(JSON.stringify(result));
  print(violation === undefined ? 'all invariants hold' : `violated: ${violation}`);
  process.exitCode = violation === undefined ? 0 : 1;
} else {
  const [from, seeds] = [Number(values.from), Number(values.seeds)];
  const beganMs = performance.now();
  const failed: number[] = [];
  let events = 0;
  for (let seed = from; seed < from + seeds; seed++) {
    const { violation, events: more } = await simulate({ seed });
    events += more;
    if (violation !== undefined) {
      failed.push(seed);
      print(`seed ${seed}: ${violation}`);
    }
    if ((seed - from + 1) % 100 === 0)
      print(`${seed - from + 1} seeds, ${events} events, ${failed.length} failed, ${((performance.now() - beganMs) / 1000).toFixed(0)} s`);
  }
  print(failed.length === 0 ? `all invariants hold over ${seeds} seeds` : `failed: ${failed.join(' ')}`);
  process.exitCode = failed.length === 0 ? 0 : 1;
}
