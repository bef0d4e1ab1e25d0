/** Private keys that are wrapped on disk by a credential of the unit: a copy of the disk is nobody. */
import { randomBytes } from 'node:crypto';
import { buildPackage } from '../support/debian_package.js';
import { Host, scenario } from '../support/host.js';
import { eventually, refused } from '../support/inro.js';
import { labScenario } from '../support/lab.js';
import { Machine } from '../support/nspawn.js';

const file = '/run/inro/secrets/web/key';
const state = '/var/lib/inro/agent';
const managerState = '/var/lib/inro/manager';
const env = { CREDENTIALS_DIRECTORY: '/run/creds' };
const given = ['--key-credential', 'inro.key'];

/** How a P-256 key begins in PKCS #8: as text, and as bytes in hexadecimal digits. */
const beginnings = ['PRIVATE KEY', 'MIGHAgEAMBMGByqGSM49', '308187020100301306072a8648ce3d'];

/** Files of a folder that hold a private key which anybody could use. */
async function inClear(host: Host, folder: string): Promise<string[]> {
  const { stdout } = await host.sh(
    `for f in $(find ${folder} -type f); do if { cat $f; echo; xxd -p $f | tr -d '\\n'; } | grep -qa ${beginnings.map((text) => `-e '${text}'`).join(' ')}; then echo $f; fi; done`,
  );
  return stdout.split('\n').filter((line) => line !== '');
}

async function putCredential(host: Host, name: string, bytes: Uint8Array): Promise<void> {
  await host.run(['sh', '-c', `mkdir -p -m 700 /run/creds && cat > /run/creds/${name}`], { stdin: bytes });
}

scenario(
  '1: keys that lie there in clear are wrapped, and everything goes on with them',
  async (t) => {
    const host = await Host.of(t);
    await putCredential(host, 'inro.key', randomBytes(32));
    const plain = await host.startManager();
    await host.join(await host.ask(['token', 'show', 'worker']), plain.address);
    t.deepEqual((await inClear(host, '/var/lib/inro')).sort(), [
      `${state}/node.key`,
      `${managerState}/ca.key`,
      `${managerState}/manager.key`,
    ]);
    await plain.stop();

    const runManager = (...more: string[]) =>
      host.start(['manager', 'run', '--state', managerState, '--listen', plain.address, ...given, ...more], {
        env,
      });
    const manager = runManager();
    await manager.printed(/"manager is ready"/);
    const runAgent = (...more: string[]) => host.start(['agent', 'run', ...given, ...more], { env });
    const agent = runAgent();
    await agent.printed(/"private keys lie on disk as it is wanted now"/);
    await agent.printed(/"session with the manager"/);
    t.deepEqual(await inClear(host, '/var/lib/inro'), []);
    t.is(
      (await host.sh(`head -c1 ${managerState}/sealing.key ${managerState}/data.key -q | xxd -p`)).stdout,
      '0606\n',
    );
    await host.ask(['secret', 'create', 'key', '-'], { stdin: 'hunter2' });
    await host.ask(['service', 'create', '--name', 'web', '--secret', 'key']);
    t.is(await host.read(file), 'hunter2');

    // New keys of both, and a program that takes over: wrapped, too.
    await host.ask(['ca', 'rotate', '--wait'], { timeoutMs: 90_000 });
    t.deepEqual(await inClear(host, '/var/lib/inro'), []);
    const next = runAgent('--takeover');
    await next.printed(/"agent is ready"/);
    t.is(await agent.exited, 0, agent.stderr);
    t.is(await host.read(file), 'hunter2');
    t.regex((await host.inro(['doctor'])).stdout, /node key.*wrapped: a copy of this disk is not this node/);
    t.regex((await host.inro(['doctor'])).stdout, /ok +certificate +node/);

    // Who has the disk and not the key.
    await next.stop();
    await manager.stop();
    const bare = ['manager', 'run', '--state', managerState, '--listen', plain.address];
    refused(t, await host.inro(bare), 1, /wrapped by a key that was not given/);
    refused(t, await host.inro(['agent', 'run']), 1, /wrapped by a key that was not given/);
    await putCredential(host, 'other.key', randomBytes(32));
    refused(
      t,
      await host.inro([...bare, '--key-credential', 'other.key'], { env }),
      1,
      /does not open with the credential other.key/,
    );
    await putCredential(host, 'short.key', randomBytes(31));
    refused(
      t,
      await host.inro(['agent', 'run', '--key-credential', 'short.key'], { env }),
      2,
      /has 31 bytes instead of 32/,
    );
    refused(t, await host.inro(['agent', 'run', ...given]), 2, /no unit brings credentials here/);
    refused(
      t,
      await host.inro(['agent', 'run', '--key-credential', 'none'], { env }),
      2,
      /"none" cannot be read/,
    );
    refused(
      t,
      await host.inro(['agent', 'run', '--unwrap-keys']),
      2,
      /needs the key that they were wrapped by/,
    );

    // With it, also to enrol again; and back to what it was.
    const again = runManager('--unwrap-keys');
    await again.printed(/"manager is ready"/);
    const token = await host.ask(['token', 'show', 'worker']);
    const join = ['agent', 'join', '--again', '--token', '-', '--manager', plain.address];
    refused(t, await host.inro(join, { stdin: token }), 1, /wrapped by a key that was not given/);
    await host.ask([...join, ...given], { stdin: token, env });
    t.deepEqual((await inClear(host, '/var/lib/inro')).sort(), [
      `${managerState}/ca.key`,
      `${managerState}/manager.key`,
    ]);
    const last = runAgent('--unwrap-keys');
    await last.printed(/"session with the manager"/);
    t.is((await inClear(host, '/var/lib/inro')).length, 3);
    await last.stop();
    await again.stop();
    const end = await host.startManager({ listen: plain.address });
    await host.startAgent();
    await eventually('it is served', async () => (await host.sh(`cat ${file}`)).stdout === 'hunter2');
    await end.stop();
  },
  { timeoutMs: 240_000 },
);

labScenario('2: in a booted systemd, with credentials that are encrypted for the machine', async (t) => {
  const machine = await Machine.boot(t);
  await machine.ask(`dpkg -i /mnt/${await buildPackage(machine.folder)}`);
  await machine.ask(
    'head -c 32 /dev/urandom | systemd-creds encrypt --with-key=host --name=inro.key - /etc/inro/inro.key.cred',
  );
  for (const unit of ['inro-manager', 'inro-agent']) {
    const folder = `/etc/systemd/system/${unit}.service.d`;
    await machine.ask(`mkdir -p ${folder} && cat > ${folder}/key.conf`, {
      stdin: '[Service]\nLoadCredentialEncrypted=inro.key:/etc/inro/inro.key.cred\n',
    });
  }
  await machine.ask(
    "for f in agent manager; do echo 'keyCredential: inro.key' >> /etc/inro/$f.yaml; done; systemctl daemon-reload",
  );
  await machine.ask('systemctl enable --now inro-manager');
  await machine.ask('umask 077 && inro token show worker > /etc/inro/join-token');
  await machine.ask(`printf 'managers:\\n  - 127.0.0.1:4747\\n' >> /etc/inro/agent.yaml`);
  await machine.ask('systemctl enable --now inro-agent');
  const status = async () =>
    JSON.parse(await machine.ask('inro agent status --json')) as { session: { state: string } };
  await eventually('the agent has a session', async () => (await status()).session.state === 'connected');
  t.is(await machine.ask("grep -rl 'PRIVATE KEY' /var/lib/inro || true"), '');
  await machine.ask('systemctl kill -s KILL inro-agent');
  await eventually('its successor has one', async () => {
    const { stdout } = await machine.sh('inro agent status --json');
    return (
      stdout !== '' && (JSON.parse(stdout) as { session: { state: string } }).session.state === 'connected'
    );
  });
  await machine.ask('rm /etc/systemd/system/inro-agent.service.d/key.conf && systemctl daemon-reload');
  await machine.sh('systemctl restart inro-agent');
  await eventually('it says why it does not start', async () => {
    const { stdout } = await machine.sh('journalctl -u inro-agent -o cat -n 50');
    return /there is no credential "inro.key"|cannot be read/.test(stdout);
  });
});
