/**
 * A cluster over which everything comes that can: what must hold is looked at after each step. `npm run simulate` runs more of
 * them, or one again with all that happens in it.
 */
import test from 'ava';
import { simulate, type Sabotaged, type SimulationOptions } from './simulate.js';

const seeds = 500;
const perTest = 50;

Error.stackTraceLimit = 0; // most errors are expected, and nobody reads where they come from

for (let from = 1; from <= seeds; from += perTest) {
  test.serial(`${perTest} clusters from seed ${from} on: every invariant holds`, async (t) => {
    t.timeout(600_000);
    for (let seed = from; seed < from + perTest; seed++) {
      const { violation } = await simulate({ seed, busyMs: 100_000 });
      t.is(violation, undefined, `npm run simulate -- --seed ${seed} --busy 100 --trace`);
    }
  });
}

test.serial('the same seed goes the same way, to the last message', async (t) => {
  const [once, again] = [await simulate({ seed: 4_711 }), await simulate({ seed: 4_711 })];
  t.deepEqual(once, again);
  t.true(once.events > 1_000);
  t.not(once.digest, (await simulate({ seed: 4_712 })).digest);
});

/** Rules that are broken on purpose: each must be noticed by some cluster. */
const sabotages: Record<string, { breaks: (parts: Sabotaged) => void; noticed: RegExp }> = {
  'a mount that knows no deadline': {
    breaks: ({ hosts }) => {
      for (const host of hosts)
        host.onStart = ({ lease }, memory) => {
          lease.extend = () => (memory.servedUntilMs = Infinity);
          lease.holds = () => true;
          Object.defineProperty(lease, 'deadlineMs', { get: () => Infinity });
        };
    },
    noticed: /after it was heard last|later than the manager says/,
  },
  'an agent that wipes nothing that a task has left': {
    breaks: ({ hosts }) => {
      for (const host of hosts)
        host.onStart = ({ vault }) => {
          const wipe = vault.wipe.bind(vault);
          vault.wipe = (key, reason) => (reason === 'removed' ? undefined : wipe(key, reason));
        };
    },
    noticed: /holds/,
  },
  'an agent that says nothing of what it has wiped': {
    breaks: ({ hosts }) => {
      for (const host of hosts)
        host.onStart = ({ receipts }) => (receipts.add = (wiped) => host.onWiped(wiped));
    },
    noticed: /no receipt is kept|which the manager has noted/,
  },
  'an agent that does not say what was gone before it was taken from it': {
    breaks: ({ hosts }) => {
      for (const host of hosts) host.onStart = ({ tasks }) => (tasks.holds = () => true);
    },
    noticed: /which the manager has noted/,
  },
  'a manager that notes nobody who is about to hold a value': {
    breaks: ({ manager }) => {
      manager.onOpen = ({ ledger }) => (ledger.hand = async () => undefined);
    },
    noticed: /no manager knows of it/,
  },
  'a manager that gives a slot away before its task has ended': {
    breaks: ({ manager }) => {
      manager.onOpen = ({ nodeStates }) => (nodeStates.isDown = () => true);
    },
    noticed: /live tasks|that are to run/,
  },
};
for (const [what, { breaks, noticed }] of Object.entries(sabotages)) {
  test.serial(`${what} is noticed`, async (t) => {
    const options: Omit<SimulationOptions, 'seed'> = { busyMs: 100_000, sabotage: breaks };
    const found: string[] = [];
    for (let seed = 1; seed <= 30 && !found.some((one) => noticed.test(one)); seed++)
      found.push((await simulate({ seed, ...options })).violation ?? '');
    t.regex(found.at(-1) ?? '', noticed, found.join('\n'));
  });
}
