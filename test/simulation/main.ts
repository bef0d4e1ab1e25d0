/**
 * Simulations by the number:
 *
 *   npm run simulate -- [--seeds 10000] [--from 1]      many, on all processors
 *   npm run simulate -- --seed 4711 [--trace] [--log]   one, with all that happens, or all that is logged
 *
 * --busy SECONDS: for how long, of the cluster's time, things are changed and fail.
 */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { fork } from 'node:child_process';
import { simulate } from './simulate.js';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '10000' },
    from: { type: 'string', default: '1' },
    seed: { type: 'string' },
    busy: { type: 'string', default: '180' },
    trace: { type: 'boolean', default: false },
    log: { type: 'boolean', default: false },
  },
});
const reportEvery = 100;
const busyMs = Number(values.busy) * 1_000;
const print = (line: string): void => void process.stdout.write(`${line}\n`);
// Most errors in it are expected, and nobody reads where they come from.
if (!values.log) Error.stackTraceLimit = 0;

if (process.send !== undefined) {
  process.on(
    'message',
    (seed: number) => void simulate({ seed, busyMs }).then((result) => process.send?.(result)),
  );
} else if (values.seed !== undefined) process.exitCode = await one(Number(values.seed));
else process.exitCode = await many(Number(values.from), Number(values.seeds));

async function one(seed: number): Promise<number> {
  const { violation, ...result } = await simulate({
    seed,
    busyMs,
    ...(values.trace ? { trace: print } : {}),
    ...(values.log ? { logTo: (line: string) => print(line.trimEnd()) } : {}),
  });
  print(JSON.stringify(result));
  print(violation === undefined ? 'all invariants hold' : `violated: ${violation}`);
  return violation === undefined ? 0 : 1;
}

async function many(from: number, seeds: number): Promise<number> {
  const beganMs = performance.now();
  const failed: number[] = [];
  let [next, done, events, checks] = [from, 0, 0, 0];
  const work = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const worker = fork(import.meta.filename, ['--busy', values.busy]);
      const give = (): void => {
        if (next < from + seeds) worker.send(next++);
        else worker.disconnect();
      };
      worker.on('message', (result: Awaited<ReturnType<typeof simulate>>) => {
        done += 1;
        events += result.events;
        checks += result.checks;
        if (result.violation !== undefined) {
          failed.push(result.seed);
          print(`seed ${result.seed}: ${result.violation}`);
        }
        const seconds = ((performance.now() - beganMs) / 1000).toFixed(0);
        if (done % reportEvery === 0)
          print(
            `${done} seeds, ${events} events, ${checks} looks at a node, ${failed.length} failed, ${seconds} s`,
          );
        give();
      });
      worker.on('exit', (code) =>
        code === 0 ? resolve() : reject(new Error(`a worker ended with ${code}`)),
      );
      give();
    });
  await Promise.all(Array.from({ length: availableParallelism() }, work));
  print(failed.length === 0 ? `all invariants hold over ${seeds} seeds` : `failed: ${failed.join(' ')}`);
  return failed.length === 0 ? 0 : 1;
}
