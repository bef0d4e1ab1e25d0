/** Several managers on one etcd: one leads, the others take over; nothing acknowledged is lost, and no reader sees anything wrong. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually, pause } from '../support/inro.js';
import { labScenario } from '../support/lab.js';
import { managersOnEtcd, type OneManager } from '../support/managers.js';

const file = '/run/inro/secrets/web/key';

/** Reads a file that holds a growing number, without a pause, until it is told to end. */
const reader = `
const { readFileSync, existsSync } = require('node:fs');
const [file, until] = process.argv.slice(1);
let reads = 0, last = 0;
const wrong = [];
console.log('reading');
const round = () => {
  for (let n = 0; n < 20; n++) {
    try {
      const seen = Number(readFileSync(file, 'utf8'));
      if (!(seen >= last)) wrong.push(last + ' then ' + seen);
      last = seen;
    } catch (error) { wrong.push(error.code); }
    reads++;
  }
  if (existsSync(until)) console.log(JSON.stringify({ reads, last, wrong: wrong.slice(0, 5) }));
  else setTimeout(round, 2);
};
round();
`;

labScenario(
  '1: managers and etcd members are killed while a secret rotates: no reader and no operator sees a wrong answer',
  async (t) => {
    const cluster = await managersOnEtcd(t, { count: 3 });
    const { host, etcd, managers, ask, inro } = cluster;
    const [first, second] = managers as [OneManager, OneManager];
    // A host joins, and an operator asks, at whichever manager.
    await host.join(await ask(second, ['token', 'show', 'worker']), second.address);
    await host.startAgent();
    await ask(second, ['secret', 'create', 'key', '-'], { stdin: '1' });
    await ask(first, ['service', 'create', '--name', 'web', '--secret', 'key']);
    t.is(await host.read(file), '1');
    const until = join(host.folder, 'until');
    const reading = host.spawn([host.node, '-e', reader, file, until]);
    await reading.printed(/reading/);
    const over = new AbortController();
    let value = 1;
    const unknown: string[] = [];
    const rotating = (async () => {
      while (!over.signal.aborted) {
        const asked = managers[value % managers.length] as OneManager;
        if (!asked.daemon().running) {
          await pause(100);
          continue;
        }
        value++;
        const { code, stderr } = await inro(asked, ['secret', 'update', 'key', '-', '--detach'], {
          stdin: String(value),
        });
        // What fails is told as what it is: nobody answered, or nobody knows; never something else.
        if (code !== 0) unknown.push(stderr);
        await pause(50);
      }
    })();
    for (let round = 0; round < 3; round++) {
      await pause(1_500);
      const running = managers.filter((one) => one.daemon().running);
      const leader = await cluster.leader(running[0] as OneManager);
      await leader.daemon().kill9();
      await pause(1_000);
      const member = etcd.leader();
      await member.kill();
      await eventually(
        'another one leads',
        async () => (await cluster.leader(managers.find((one) => one !== leader) as OneManager)) !== leader,
        60_000,
      );
      await pause(1_500);
      await member.start();
      await leader.start();
    }
    await pause(1_500);
    over.abort();
    await rotating;
    for (const words of unknown)
      t.regex(words, /does not answer|nothing answers|went away|not known|no manager leads|does not lead/);
    t.log(`${value} updates, of which ${unknown.length} were told to have failed`);
    t.true(unknown.length < value / 2);
    // The last one is made when all is well again.
    await ask(second, ['secret', 'update', 'key', '-'], { stdin: String(++value) });
    t.is(await host.read(file), String(value));
    writeFileSync(until, '');
    const [, said = ''] = await reading.printed(/(\{.*\})/);
    const { reads, wrong } = JSON.parse(said) as { reads: number; wrong: string[] };
    t.deepEqual(wrong, []);
    t.true(reads > 1_000);
    // Each that was acknowledged has made a version; of the others some may have.
    const versions = JSON.parse(await ask(first, ['secret', 'history', 'key', '--json'])) as unknown[];
    const newest = JSON.parse(await ask(first, ['secret', 'inspect', 'key'])) as { version?: number }[];
    t.log(`${versions.length} versions are kept, the newest is ${newest[0]?.version}`);
    t.regex(await ask(first, ['audit', '--verify']), /whole/);
  },
  { timeoutMs: 300_000 },
);
