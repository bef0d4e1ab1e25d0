/** A manager killed at random moments of a mixed load, again and again: what it has said yes to is there, whole. */
import { call } from '../../src/rpc/client.js';
import { Control } from '../../src/proto/gen/inro/v1/control_pb.js';
import { ControlClient } from '../support/control_client.js';
import { Host } from '../support/host.js';
import { labScenario } from '../support/lab.js';

const rounds = 200;
const workers = 4;

/** What a secret must be by the answers; in between two answers it may be either. */
interface Expected {
  id: string;
  version: number;
  /** An update, or the removal, was asked for and not answered. */
  mayBe: number | 'gone' | undefined;
}

labScenario(
  `killed ${rounds} times under creates, updates, removals, services and rotations of the data key`,
  async (t) => {
    const host = await Host.of(t, { ownNetwork: true });
    const socket = host.outside('/run/inro/manager.sock');
    const secrets = new Map<string, Expected>();
    const services = new Map<string, 'there' | 'maybe'>();
    let [asked, answered, torn] = [0, 0, 0];

    const act = async (client: ControlClient): Promise<void> => {
      const kind = Math.random();
      const [name, known] = [...secrets][Math.floor(Math.random() * secrets.size)] ?? [];
      if (kind < 0.4 || name === undefined || known === undefined || known.mayBe !== undefined) {
        const fresh = `s${asked++}`;
        const value = Buffer.alloc(1 + Math.floor(Math.random() * 30_000), fresh);
        const expected: Expected = { id: '', version: 0, mayBe: 1 };
        secrets.set(fresh, expected);
        expected.id = await client.create(fresh, value);
        Object.assign(expected, { version: 1, mayBe: undefined });
      } else if (kind < 0.75) {
        known.mayBe = known.version + 1;
        await client.update(known.id, known.version + 1, Buffer.from(`${name} ${known.version + 1}`));
        Object.assign(known, { version: known.version + 1, mayBe: undefined });
      } else if (kind < 0.85) {
        known.mayBe = 'gone';
        await call(client.connection, Control, 'removeSecret', { name });
        secrets.delete(name);
      } else if (kind < 0.9) {
        await call(client.connection, Control, 'rotateDataKey', {}).catch((error: unknown) => {
          if ((error as { code?: string }).code !== 'conflict') throw error;
        });
      } else {
        const service = `v${asked++}`;
        services.set(service, 'maybe');
        await call(client.connection, Control, 'createService', { name: service, replicas: 0 });
        services.set(service, 'there');
      }
      answered++;
    };

    /** What is there is what was answered, and what was not may be there as a whole. */
    const check = async (client: ControlClient, round: number): Promise<void> => {
      const found = (await call(client.connection, Control, 'listSecrets', { filters: [] })).secrets;
      const byName = new Map(found.map((secret) => [secret.name, secret]));
      for (const [name, expected] of secrets) {
        const secret = byName.get(name);
        byName.delete(name);
        const { version, mayBe } = expected;
        if (secret === undefined) {
          if (!(version === 0 || mayBe === 'gone')) t.fail(`round ${round}: ${name}@${version} is lost`);
          secrets.delete(name);
          continue;
        }
        if (secret.version !== version && secret.version !== mayBe)
          t.fail(`round ${round}: ${name} is at ${secret.version}, not ${version} or ${mayBe}`);
        const numbers = secret.versions.map((one) => one.version);
        if (numbers.length !== secret.version || secret.versions.some(({ sizeBytes }) => sizeBytes === 0))
          torn++;
        Object.assign(expected, { id: secret.id, version: secret.version, mayBe: undefined });
      }
      if (byName.size > 0) t.fail(`round ${round}: ${[...byName.keys()].join()} came from nowhere`);
      const there = new Set(
        (await call(client.connection, Control, 'listServices', { filters: [] })).services.map(
          ({ name }) => name,
        ),
      );
      for (const [name, state] of services) {
        if (state === 'there' && !there.has(name)) t.fail(`round ${round}: service ${name} is lost`);
        services.set(name, 'there');
        if (!there.has(name)) services.delete(name);
      }
    };

    for (let round = 0; round < rounds; round++) {
      const manager = await host.startManager();
      const client = await ControlClient.on(socket);
      await check(client, round);
      const over = new AbortController();
      const working = Array.from({ length: workers }, async () => {
        while (!over.signal.aborted) await act(client);
      });
      const ended = Promise.allSettled(working);
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 150));
      over.abort();
      await manager.kill9();
      client.close();
      await ended;
    }
    t.is(torn, 0);
    t.log(`${answered} changes were answered, ${secrets.size} secrets are left`);

    // The last one opens what all the others have written.
    const manager = await host.startManager();
    const client = await ControlClient.on(socket);
    await check(client, rounds);
    t.regex(await host.ask(['audit', '--verify']), /./);
    await host.join(await host.ask(['token', 'show', 'worker']), manager.address);
    const agent = host.start(['agent', 'run']);
    await agent.printed(/"session with the manager"/);
    const some = [...secrets].filter(([, { version }]) => version > 1).slice(0, 50);
    t.true(some.length > 10);
    await host.ask(['service', 'create', '--name', 'all', ...some.flatMap(([name]) => ['--secret', name])]);
    for (const [name, { version }] of some)
      t.is(await host.read(`/run/inro/secrets/all/${name}`), `${name} ${version}`);
    client.close();
  },
  { timeoutMs: 900_000 },
);
