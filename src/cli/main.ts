#!/usr/bin/env node
/** The command line: what there is, and which file does it. Each command's code is loaded when it is called. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { availabilities } from '../model/availability.js';
import { asInroError } from '../model/error.js';
import { version } from '../system/version.js';
import { withPolicyOptions } from './update_options.js';

const collect = (value: string, previous: string[] = []): string[] => [...previous, value];

function collectLabel(text: string, previous: Record<string, string>): Record<string, string> {
  const at = text.indexOf('=');
  if (at === 0) throw new InvalidArgumentError('write it as KEY=VALUE.');
  return at < 0 ? { ...previous, [text]: '' } : { ...previous, [text.slice(0, at)]: text.slice(at + 1) };
}

function wholeNumber(text: string): number {
  if (!/^[0-9]{1,6}$/.test(text)) throw new InvalidArgumentError('write a whole number, 0 or more.');
  return Number(text);
}

const program = new Command('inro')
  .enablePositionalOptions()
  .description(
    'Secrets for the hosts that need them: delivered to locked memory, read through a mount, wiped when the task goes.',
  )
  .version(version, '-V, --version')
  // What an option is when it is not given stands in its description: commander would add `(default: [])`.
  .configureHelp({ optionDescription: ({ description }) => description })
  .showHelpAfterError("(try 'inro --help', or --help after a command)");

/** A command that talks to a manager. */
function operator(parent: Command, usage: string, description: string): Command {
  return parent
    .command(usage)
    .description(description)
    .option('--manager <ADDRESS>', "unix:PATH of the manager's socket, or its HOST:PORT (or INRO_MANAGER)")
    .option('--identity <FILE>', 'who you are, for HOST:PORT (or INRO_IDENTITY)')
    .option('--json', 'print JSON (docs/json.md)');
}

function readers(): Option {
  return new Option(
    '--readers <WHO>',
    'who may read: attached (workloads alone), any, or auto (any until one attaches; the default)',
  ).choices(['auto', 'attached', 'any']);
}

/** How the mount is served. The names are those of src/agent/mount/drivers.ts, which is not loaded for every command. */
function driver(): Option {
  return new Option('--driver <NAME>', 'how to mount: kernel or fuse-native (README)').choices([
    'kernel',
    'fuse-native',
  ]);
}

const config = ['--config <FILE>', 'take settings from there (docs/configuration.md)'] as const;
const keyCredential = [
  '--key-credential <NAME>',
  'wrap private keys on disk by the key that this credential of the unit is',
] as const;
const unwrapKeys = ['--unwrap-keys', 'write wrapped keys in clear again'] as const;
const ifVersion = [
  '--if-version <N>',
  'refuse unless it is at version N (--json shows it)',
  wholeNumber,
] as const;
const detach = ['-d, --detach', 'return when the change is stored, do not wait for the nodes'] as const;
const generate = [
  '--generate <FORMAT>',
  'instead of a file: a value that is drawn, and nobody sees: base64:32, base64url:32, hex:32, alnum:24',
] as const;
const expires = [
  '--expires <TIME>',
  'when the value is not good any more: 12h, 30d; it is shown and warned of',
] as const;
const lease = [
  '--lease <TIME>',
  'how long a node serves it without an answer of a manager: 10s to 365d, or never (24h if not given)',
] as const;
const withdraw = ['--withdraw', 'revoke it then'] as const;
const quiet = ['-q, --quiet', 'print ids only'] as const;
const filter = [
  '-f, --filter <KEY=VALUE>',
  'only what matches: name=, id=, label=K[=V] (repeatable)',
  collect,
  [] as string[],
] as const;

program
  .command('doctor')
  .description('check whether an agent can run on this host, and say what to do; changes nothing')
  .option(...config)
  .option('--state <DIR>', 'where the identity is kept')
  .option('--mount <DIR>', 'where the secrets are mounted')
  .option('--json', 'print JSON (docs/json.md)')
  .action(async (options) => (await import('./commands/doctor.js')).doctor(options));

program
  .command('dev')
  .description('run a manager and an agent on this host, until Ctrl-C')
  .option('--state <DIR>', 'keep the state there (otherwise it is temporary)')
  .option('--mount <DIR>', 'mount the secrets there')
  .option('--listen <HOST:PORT>', "the manager's address (a free port of 127.0.0.1 if not given)")
  .option(
    '--docker <SOCKET>',
    "a container engine's socket, whose containers can have services as volumes; or off",
  )
  .addOption(driver())
  .action(async (options) => (await import('./commands/dev.js')).dev(options));

const storeCa = ['--store-ca <FILE>', "whom etcd's certificates are by"] as const;
const storeCert = ['--store-cert <FILE>', 'the certificate that is shown to etcd'] as const;
const storeKey = ['--store-key <FILE>', 'the key of that certificate'] as const;
const manager = program.command('manager').description('run a manager');
manager
  .command('run')
  .description('run a manager in the foreground')
  .option(...config)
  .option('--state <DIR>', 'where it keeps its state')
  .option('--listen <HOST:PORT>', 'where agents reach it')
  .option('--socket <PATH>', 'where operators reach it')
  .option('--ca-cert <FILE>', 'found the cluster with this CA: a root, or an intermediate and those above it')
  .option('--ca-key <FILE>', 'the key of that CA')
  .option(
    '--external-ca <SPEC>',
    'a CA that signs elsewhere (repeatable; docs/external-ca.md): protocol=cfssl,url=https://HOST:PORT,cacert=FILE',
    collect,
    [],
  )
  .option('--store <URL>', 'share its store with other managers: etcd://HOST:2379,HOST:2379/PREFIX')
  .option(...storeCa)
  .option(...storeCert)
  .option(...storeKey)
  .option(...keyCredential)
  .option(...unwrapKeys)
  .option('--autolock', 'wrap its keys on disk by an unlock key, which it needs after each start')
  .option('--no-autolock', 'its keys lie on disk in clear again; needs the unlock key once more')
  .option(
    '--unlock-key <SOURCE>',
    "the unlock key: '-' for standard input, a FILE, or @NAME for a credential",
  )
  .action(async (options) => (await import('./commands/manager_run.js')).managerRun(options));
manager
  .command('join')
  .description('make this host another manager of a cluster on a distributed store')
  .requiredOption(
    '--token <SOURCE>',
    "a manager token: '-' for standard input, a FILE, or @NAME for a credential (inro token create manager)",
  )
  .requiredOption('--manager <HOST:PORT>', 'a manager that runs')
  .requiredOption('--state <DIR>', 'where it is to keep its state')
  .option(...keyCredential)
  .option('--json', 'print JSON')
  .action(async (options) => (await import('./commands/manager_join.js')).managerJoin(options));
manager
  .command('migrate')
  .description('move the store of a manager that is stopped from its folder to etcd')
  .requiredOption('--state <DIR>', "the manager's state folder")
  .requiredOption('--store <URL>', 'where to: etcd://HOST:2379,HOST:2379/PREFIX')
  .option(...storeCa)
  .option(...storeCert)
  .option(...storeKey)
  .option(
    '--unlock-key <SOURCE>',
    "of a manager with autolock: '-' for standard input, a FILE, or @NAME for a credential",
  )
  .option(...keyCredential)
  .action(async (options) => (await import('./commands/manager_migrate.js')).managerMigrate(options));
operator(manager, 'ls', 'list the managers of a cluster on a distributed store').action(async (options) =>
  (await import('./commands/manager_ls.js')).managerLs(options),
);
operator(
  manager,
  'rm <ID...>',
  'have a manager be none any more: it gets no keys, and its certificate is refused',
).action(async (ids, options) => (await import('./commands/manager_ls.js')).managerRm(ids, options));
manager
  .command('unlock [SOURCE]')
  .description(
    "unlock the manager of this host: the key from the terminal, '-', a FILE, or @NAME for a credential",
  )
  .option('--socket <PATH>', "the manager's socket")
  .action(async (source, options) =>
    (await import('./commands/manager_lock.js')).managerUnlock(source, options),
  );
manager
  .command('unlock-key')
  .description('show the key that unlocks the manager of this host; the first time, wrap its keys by it')
  .option('--rotate', 'draw another one; the former one unlocks it no more')
  .option('--new', 'only draw one, for --unlock-key; no manager is asked')
  .option('-q, --quiet', 'print nothing but the key')
  .option('--socket <PATH>', "the manager's socket")
  .action(async (options) => (await import('./commands/manager_lock.js')).managerUnlockKey(options));

manager
  .command('backup <FILE>')
  .description('back up the manager of this host while it runs, sealed under a key; - for standard output')
  .option(
    '--key <SOURCE>',
    "the key: '-' for standard input, a FILE, or @NAME for a credential (the unlock key if not given)",
  )
  .option('--socket <PATH>', "the manager's socket")
  .action(async (file, options) =>
    (await import('./commands/manager_backup.js')).managerBackup(file, options),
  );
manager
  .command('restore <FILE>')
  .description('make the state folder of a manager from a backup; - for standard input')
  .requiredOption('--state <DIR>', 'the folder; it is not there yet, or empty')
  .option(
    '--key <SOURCE>',
    "what opens it: '-' for standard input, a FILE, or @NAME for a credential (asked for if not given)",
  )
  .action(async (file, options) =>
    (await import('./commands/manager_backup.js')).managerRestore(file, options),
  );
operator(
  manager,
  'data-key',
  'show since when content keys are kept under the present data key; or replace it',
)
  .option('--rotate', 'keep them under another one; the former one is destroyed when all are done')
  .option('--wait', 'until that is done, with progress')
  .action(async (options) => (await import('./commands/manager_data_key.js')).managerDataKey(options));

const agent = program.command('agent').description('the agent of this host');
agent
  .command('join')
  .description('make this host a node of a cluster')
  .requiredOption(
    '--token <SOURCE>',
    "the join token: '-' for standard input, a FILE, or @NAME for a credential",
  )
  .requiredOption('--manager <HOST:PORT>', 'a manager of the cluster')
  .option('--state <DIR>', 'where the identity is kept')
  .option(...keyCredential)
  .option('--again', 'a new key and certificate for a host that is a node; it keeps its id')
  .option('--json', 'print JSON (docs/json.md)')
  .action(async (options) => (await import('./commands/agent_join.js')).agentJoin(options));
agent
  .command('run')
  .description('run the agent in the foreground')
  .option(...config)
  .option('--state <DIR>', 'where the identity is kept')
  .option('--mount <DIR>', 'mount the secrets there')
  .option('--socket <PATH>', 'where operators reach it')
  .option(
    '--docker <SOCKET>',
    "a container engine's socket, whose containers can have services as volumes; or off",
  )
  .option('--credentials <PATH>', 'where units of systemd ask for credentials')
  .option(...keyCredential)
  .option(...unwrapKeys)
  .option('--takeover', 'go on where the agent that runs is, without its readers noticing')
  .addOption(driver())
  .action(async (options) => (await import('./commands/agent_run.js')).agentRun(options));
agent
  .command('stop')
  .description('end the agent: wipe every value, unmount')
  .option('--socket <PATH>', "the agent's socket")
  .action(async (options) => (await import('./commands/agent_stop.js')).agentStop(options));
// Run by the unit with rights that the agent itself does not have (systemd/inro-agent.service).
agent
  .command('mount', { hidden: true })
  .requiredOption('--unit <NAME>', 'for the agent of this unit, unless a mount is kept for it')
  .option('--mount <DIR>', 'mount the secrets there')
  .action(async (options) => (await import('./commands/agent_mount.js')).agentMount(options));
agent
  .command('unmount', { hidden: true })
  .requiredOption('--unit <NAME>', 'of this unit, unless a mount is kept for it')
  .option('--mount <DIR>', 'where the secrets were')
  .action(async (options) => (await import('./commands/agent_mount.js')).agentUnmount(options));
agent
  .command('status')
  .description('show identity, session, tasks, and the protections in force and not')
  .option('--socket <PATH>', "the agent's socket")
  .option('--json', 'print JSON (docs/json.md)')
  .action(async (options) => (await import('./commands/agent.js')).agentStatus(options));
agent
  .command('health')
  .description('say healthy, degraded or unhealthy (exit code 1), for scripts and container health checks')
  .option('--socket <PATH>', "the agent's socket")
  .option('--json', 'print JSON (docs/json.md)')
  .action(async (options) => (await import('./commands/agent_health.js')).agentHealth(options));

agent
  .command('audit')
  .description('show who has read which secret on this host, and who was refused')
  .option('-f, --follow', 'go on with what is being read, until Ctrl-C')
  .option('-s, --secret <SECRET>', 'only of this secret')
  .option('--socket <PATH>', "the agent's socket")
  .option('--json', 'print JSON (docs/json.md); with --follow a line for each')
  .action(async (options) => (await import('./commands/agent_audit.js')).agentAudit(options));

// Run by a container runtime (agent/docker/oci_hook.ts).
agent
  .command('oci-hook')
  .description('attach a container of Podman before it begins; Podman runs it (see --print)')
  .option(
    '--print',
    'print the file by which Podman knows it, for /usr/share/containers/oci/hooks.d/inro.json',
  )
  .option('--mount <DIR>', 'where the secrets are')
  .option('--socket <PATH>', "the agent's socket")
  .action(async (options) => (await import('./commands/agent_oci_hook.js')).agentOciHook(options));

program
  .command('exec <SERVICE> <CMD...>')
  .description('run a command that may read the secrets of a service: inro exec SERVICE -- CMD...')
  .option(
    '--env <NAME=SECRET>',
    'also put a value into the environment, where /proc shows it (repeatable)',
    collect,
    [],
  )
  .option('--socket <PATH>', "the agent's socket")
  .action(async (service, command, options) =>
    (await import('./commands/exec.js')).exec(service, command, options),
  );

const token = program.command('token').description('join tokens');
operator(token, 'show <ROLE>', 'print the join token for a role (worker)').action(async (role, options) =>
  (await import('./commands/token.js')).tokenShow(role, options),
);
operator(token, 'rotate <ROLE>', 'make a new join token; the old one ends at once').action(
  async (role, options) => (await import('./commands/token.js')).tokenRotate(role, options),
);
operator(token, 'create <ROLE>', 'make a join token to measure, and print it: it is shown only here')
  .option('--ttl <TIME>', 'how long it lets hosts in: 90s, 10m, 24h, 7d (1h if not given)', '1h')
  .option('--uses <N>', 'for how many hosts (1 if not given)', wholeNumber, 1)
  .option('--node-label <KEY=VALUE>', 'a label of the nodes that it makes (repeatable)', collectLabel, {})
  .option('--require-approval', 'each host waits for: inro node approve')
  .action(async (role, options) => (await import('./commands/token.js')).tokenCreate(role, options));
operator(token, 'ls', 'list the tokens made to measure, never the tokens themselves')
  .option(...quiet)
  .action(async (options) => (await import('./commands/token.js')).tokenLs(options));
operator(token, 'revoke <ID...>', 'end tokens made to measure; nodes that have joined stay').action(
  async (ids, options) => (await import('./commands/token.js')).tokenRevoke(ids, options),
);

const ca = program.command('ca').description("the cluster's certificate authority");
operator(ca, 'inspect', 'show the root certificate, and for how long certificates are issued').action(
  async (options) => (await import('./commands/ca.js')).caInspect(options),
);
operator(ca, 'update', 'change for how long certificates are issued from now on, or when a rotation ends')
  .option(...ifVersion)
  .option('--cert-expiry <DURATION>', 'between 1h and 3650d: 90d, 2160h, 12h')
  .option('--rotation-deadline <TIME>', 'when the rotation that is under way ends: from now, or "now"')
  .action(async (options) => (await import('./commands/ca.js')).caUpdate(options));

operator(ca, 'rotate', 'have another CA sign, and every node get a certificate of it')
  .option(
    '--ca-cert <FILE>',
    'a CA that you bring along, with those above it up to the root (PEM); else one is made',
  )
  .option('--ca-key <FILE>', 'its private key (PEM); taken through the socket alone')
  .option(
    '--deadline <TIME>',
    'how long nodes that are away are waited for; later they must enrol again',
    '24h',
  )
  .option('--wait', 'come back when it is over, and show how far it is')
  .action(async (options) => (await import('./commands/ca.js')).caRotate(options));

operator(program, 'status', 'show the cluster in a few lines: manager, nodes, and what ends first').action(
  async (options) => (await import('./commands/status.js')).status(options),
);

operator(program, 'audit', 'who did what, when and from where, and what was refused')
  .option('-f, --follow', 'go on with what happens from now on')
  .option('--verify', 'whether it is whole: each line names the digest of the one before')
  .option('--known <NUMBER:DIGEST>', 'with --verify: an end that was noted earlier must be in it')
  .action(async (options) => (await import('./commands/audit.js')).auditCommand(options));

operator(program, 'events', 'what happens, until Ctrl-C')
  .option('-f, --filter <KEY=VALUE>', 'type, action, id or name (repeatable; all must fit)', collect, [])
  .option('--since <DURATION>', 'also what was in this time, as far as it is remembered')
  .option('--no-follow', 'only what is remembered')
  .action(async (options) => (await import('./commands/events.js')).eventsCommand(options));

operator(
  program,
  'apply',
  'make secrets and services as a file says: a plan first, then all of it or nothing',
)
  .requiredOption(
    '-f, --file <FILE>',
    "YAML, or Kubernetes Secrets: docs/configuration.md ('-' for standard input)",
  )
  .option('--dry-run', 'show the plan, and do nothing')
  .option('-y, --yes', 'do not ask')
  .option(...detach)
  .action(async (options) => (await import('./commands/apply.js')).applyCommand(options));
operator(
  program,
  'deploy [STACK]',
  'the same from a Compose file; with the name of a stack its names are STACK_NAME',
)
  .option('-f, --file <FILE>', "the Compose file ('-' for standard input)")
  .addOption(new Option('-c, --compose-file <FILE>', 'the same').conflicts('file'))
  .option('--dry-run', 'show the plan, and do nothing')
  .option('-y, --yes', 'do not ask')
  .option(...detach)
  .action(async (stack, options) => (await import('./commands/deploy.js')).deployCommand(stack, options));

operator(program, 'receipts', 'what nodes have said to be wiped')
  .option('--secret <SECRET>', 'of this secret alone')
  .option('--node <NODE>', 'of this node alone')
  .action(async (options) => (await import('./commands/receipts.js')).receiptsCommand(options));

const operators = program.command('operator').description('people who may use this cluster from elsewhere');
operator(operators, 'create <NAME>', 'make an identity for a person: a file with his key and certificate')
  .requiredOption('--role <ROLE>', 'admin (everything), deployer (services), auditor (only looks)')
  .option('--grant <GLOB>', "secrets that a deployer may use: a name, or 'web_*' (repeatable)", collect, [])
  .option('--ttl <TIME>', 'how long it lasts unless he renews it (90d if not given)', '90d')
  .option('--address <HOST:PORT>', 'how he reaches a manager (repeatable)', collect, [])
  .option('--csr <FILE>', "his own request ('-' for standard input): his key stays with him")
  .option('--out <FILE>', "where it is written; '-' into a pipe (NAME.pem if not given)")
  .action(async (name, options) => (await import('./commands/operator.js')).operatorCreate(name, options));
operators
  .command('request')
  .description('draw a key that stays here, and print a request for: operator create --csr')
  .requiredOption('--out <FILE>', 'where the key is written')
  .action(async (options) => (await import('./commands/operator.js')).operatorRequest(options));
operator(operators, 'ls', 'list operators')
  .option(...quiet)
  .action(async (options) => (await import('./commands/operator.js')).operatorLs(options));
operator(operators, 'inspect <OPERATOR...>', 'show operators').action(async (names, options) =>
  (await import('./commands/operator.js')).operatorInspect(names, options),
);
operator(operators, 'update <OPERATOR>', 'change what an operator may do, at once')
  .option(...ifVersion)
  .option('--role <ROLE>', 'admin, deployer, auditor')
  .option('--grant-add <GLOB>', 'one more (repeatable)', collect, [])
  .option('--grant-rm <GLOB>', 'one less, as it was written (repeatable)', collect, [])
  .action(async (name, options) => (await import('./commands/operator.js')).operatorUpdate(name, options));
operator(operators, 'revoke <OPERATOR...>', 'refuse operators from now on; they stay in the list').action(
  async (names, options) => (await import('./commands/operator.js')).operatorRevoke(names, options),
);
operator(operators, 'rm <OPERATOR...>', 'remove operators, and refuse them from now on').action(
  async (names, options) => (await import('./commands/operator.js')).operatorRm(names, options),
);
operator(operators, 'renew', 'give your own identity a new key and certificate, while it is valid').action(
  async (options) => (await import('./commands/operator.js')).operatorRenew(options),
);

const node = program.command('node').description('the nodes of the cluster');
operator(node, 'ls', 'list nodes')
  .option(...filter)
  .option(...quiet)
  .action(async (options) => (await import('./commands/node.js')).nodeLs(options));
operator(node, 'inspect <NODE...>', 'show nodes').action(async (names, options) =>
  (await import('./commands/node.js')).nodeInspect(names, options),
);
operator(node, 'approve <NODE>', 'let a host in that waits for it').action(async (name, options) =>
  (await import('./commands/node_decide.js')).nodeApprove(name, options),
);
operator(node, 'reject <NODE>', 'refuse a host that waits for approval').action(async (name, options) =>
  (await import('./commands/node_decide.js')).nodeReject(name, options),
);
operator(node, 'update <NODE>', 'change whether it takes tasks, and the labels that constraints look at')
  .option(...ifVersion)
  .addOption(
    new Option(
      '--availability <WHICH>',
      'active; pause: no new tasks; drain: its tasks end, and are replaced elsewhere',
    ).choices(availabilities),
  )
  .option(...detach)
  .option('--label-add <KEY=VALUE>', 'add or change a label (repeatable)', collectLabel, {})
  .option('--label-rm <KEY>', 'remove a label (repeatable)', collect, [])
  .action(async (name, options) => (await import('./commands/node_decide.js')).nodeUpdate(name, options));
operator(node, 'clear-alarm <NODE>', 'forget that its identity was used twice').action(
  async (name, options) => (await import('./commands/node_decide.js')).nodeClearAlarm(name, options),
);
operator(node, 'rm <NODE>', 'remove a node: it wipes, and its certificate is refused from then on')
  .option('--force', 'do not wait for the node to say that it has wiped')
  .action(async (name, options) => (await import('./commands/node_decide.js')).nodeRm(name, options));

const secret = program.command('secret').description('secrets: values go in, and never come back out');
operator(secret, 'create <NAME> [FILE]', "create a secret from a file or standard input ('-')")
  .option('-l, --label <KEY=VALUE>', 'a label (repeatable)', collectLabel, {})
  .option(...generate)
  .option(...expires)
  .option(...withdraw)
  .option(...lease)
  .action(async (name, file, options) =>
    (await import('./commands/secret.js')).secretCreate(name, file, options),
  );
operator(
  secret,
  'update <SECRET> [FILE]',
  'give a secret a new version; running tasks get it without a restart',
)
  .option('--label-add <KEY=VALUE>', 'add or change a label (repeatable)', collectLabel, {})
  .option('--label-rm <KEY>', 'remove a label (repeatable)', collect, [])
  .option(...generate)
  .option(...expires)
  .option(...withdraw)
  .option(...lease)
  .option(
    '--stage <SERVICE>',
    'only for tasks of this service, until it is promoted (repeatable)',
    collect,
    [],
  )
  .option('--nodes <N>', 'only on so many of the nodes that use it, until it is promoted', wholeNumber)
  .option('--promote', 'no new value: the staged version becomes the current one')
  .option('--unstage', 'no new value: the staged version is taken back')
  .option('--if-version <V>', 'refuse unless the current version is V', wholeNumber)
  .option(...detach)
  .action(async (name, file, options) =>
    (await import('./commands/secret.js')).secretUpdate(name, file, options),
  );
operator(secret, 'ls', 'list secrets')
  .option(...filter)
  .option(...quiet)
  .action(async (options) => (await import('./commands/secret.js')).secretLs(options));
operator(secret, 'inspect <SECRET...>', 'show secrets, never their values').action(async (names, options) =>
  (await import('./commands/secret.js')).secretInspect(names, options),
);
operator(secret, 'revoke <SECRET[@V]>', 'withdraw version V, or the current one, everywhere and for ever')
  .option(...detach)
  .action(async (text, options) => (await import('./commands/secret_revoke.js')).secretRevoke(text, options));
operator(
  secret,
  'history <SECRET>',
  'its versions: which is served, and how many nodes may hold each',
).action(async (name, options) =>
  (await import('./commands/secret_versions.js')).secretHistory(name, options),
);
operator(secret, 'rollback <SECRET[@V]>', 'go back to an earlier version: the one before, if none is named')
  .option('--if-version <V>', 'refuse unless the current version is V', wholeNumber)
  .option(...detach)
  .action(async (text, options) =>
    (await import('./commands/secret_versions.js')).secretRollback(text, options),
  );
operator(secret, 'prune <SECRET>', 'delete old versions that are not served, and that no node holds')
  .requiredOption('--keep <N>', 'so many of the newest stay', wholeNumber)
  .action(async (name, options) =>
    (await import('./commands/secret_versions.js')).secretPrune(name, options),
  );
operator(secret, 'rm <SECRET...>', 'remove secrets that no service uses').action(async (names, options) =>
  (await import('./commands/secret.js')).secretRm(names, options),
);

const service = program.command('service').description('services: who gets which secrets');
const unitText =
  'the unit of systemd that gets the secrets as credentials: nginx, app@1, app@ (every instance)';
const secretSyntax =
  'NAME[@VERSION] or source=NAME[@VERSION],target=FILE,uid=U,gid=G,mode=OCTAL,mmap,on-change=ACTION (repeatable)';
const onChange = [
  '--on-change <ACTION>',
  'when a file is new or has a new value: none, signal=HUP, restart, hook=NAME (of agent.yaml)',
] as const;
const serviceCreate = operator(
  service,
  'create [IMAGE] [ARG...]',
  'create a service; its tasks get its secrets, and run the image if one is named',
)
  .passThroughOptions()
  .requiredOption('--name <NAME>', 'its name')
  .option('--secret <SECRET>', `a secret: ${secretSyntax}`, collect, [])
  .addOption(
    new Option(
      '--mode <MODE>',
      'a number of tasks, or one on each node that satisfies the constraints',
    ).choices(['replicated', 'global']),
  )
  .option('--replicas <N>', 'how many tasks (1 if not given)', wholeNumber)
  .option('--max-replicas-per-node <N>', 'at most so many of its tasks on one node', wholeNumber)
  .option(
    '--constraint <EXPR>',
    'where tasks may run: node.id==ID, node.labels.KEY==VALUE, or !=; without secrets node.hostname and node.role, too (repeatable)',
    collect,
    [],
  )
  .option('--unit <NAME>', unitText)
  .addOption(readers())
  .option(...onChange)
  .addOption(
    new Option('--until <WHEN>', 'when its tasks end (removed if not given)').choices([
      'removed',
      'detached',
    ]),
  )
  .option(
    '--detach-grace <SECONDS>',
    'with --until detached: so long after the last workload (10 if not given)',
    wholeNumber,
  )
  .option('-l, --label <KEY=VALUE>', 'a label (repeatable)', collectLabel, {})
  .option('-e, --env <KEY=VALUE>', "the container's environment, never a secret (repeatable)", collect, [])
  .option(
    '--mount <MOUNT>',
    'type=volume,source=NAME,target=PATH[,readonly] or type=tmpfs,target=PATH (repeatable)',
    collect,
    [],
  )
  .option('--container-label <KEY=VALUE>', "the container's label (repeatable)", collectLabel, {})
  .option('-u, --user <USER[:GROUP]>', 'whom the container runs as')
  .option('-w, --workdir <DIR>', "the container's working directory")
  .option('--network <NETWORK>', "the engine's network")
  .option('--read-only', "the container's root file system is read-only")
  .option('--stop-signal <SIGNAL>', 'what asks the container to end')
  .option('--stop-grace-period <SECONDS>', 'between that and SIGKILL (10 if not given)', wholeNumber)
  .addOption(
    new Option(
      '--restart-condition <WHEN>',
      'when a task that has ended is replaced (any if not given)',
    ).choices(['any', 'on-failure', 'none']),
  )
  .option(...detach)
  .action(async (image, args, options) =>
    (await import('./commands/service.js')).serviceCreate(image, args, options),
  );
withPolicyOptions(serviceCreate, wholeNumber);
const serviceUpdate = operator(
  service,
  'update <SERVICE>',
  'change a service; only what its tasks run, or --force, replaces them, one after the other',
)
  .option(...ifVersion)
  .option('--secret-add <SECRET>', `add a secret: ${secretSyntax}`, collect, [])
  .option(
    '--secret-rm <NAME>',
    'take a secret away: its files vanish and are wiped (repeatable)',
    collect,
    [],
  )
  .option('--replicas <N>', 'how many tasks', wholeNumber)
  .option(
    '--max-replicas-per-node <N>',
    'at most so many of its tasks on one node, 0 for no bound',
    wholeNumber,
  )
  .option('--constraint-add <EXPR>', 'tasks elsewhere end, and are replaced (repeatable)', collect, [])
  .option('--constraint-rm <EXPR>', 'take a constraint away (repeatable)', collect, [])
  .addOption(new Option('--unit <NAME>', unitText).conflicts('unitRm'))
  .option('--unit-rm', 'give them to no unit any more')
  .option('--image <IMAGE>', 'what its tasks run from now on')
  .option('--arg <ARG>', "the image's arguments from now on, all of them (repeatable)", collect)
  .option('--env-add <KEY=VALUE>', "add to or change the container's environment (repeatable)", collect, [])
  .option('--env-rm <KEY>', 'remove from it (repeatable)', collect, [])
  .option('-u, --user <USER[:GROUP]>', 'whom the container runs as')
  .option('--force', 'replace its tasks though nothing has changed')
  .option('--rollback', 'run again what was run before the latest update')
  .addOption(readers())
  .option(...onChange)
  .option('--label-add <KEY=VALUE>', 'add or change a label (repeatable)', collectLabel, {})
  .option('--label-rm <KEY>', 'remove a label (repeatable)', collect, [])
  .option(...detach)
  .action(async (name, options) => (await import('./commands/service.js')).serviceUpdate(name, options));
withPolicyOptions(serviceUpdate, wholeNumber);
operator(service, 'scale <SERVICE=REPLICAS...>', 'change how many tasks services have')
  .option(...detach)
  .action(async (changes, options) => (await import('./commands/service.js')).serviceScale(changes, options));
operator(service, 'rollback <SERVICE>', 'run again what was run before the latest update')
  .option(...ifVersion)
  .option(...detach)
  .action(async (name, options) => (await import('./commands/service.js')).serviceRollback(name, options));
operator(service, 'ls', 'list services')
  .option(...filter)
  .option(...quiet)
  .action(async (options) => (await import('./commands/service.js')).serviceLs(options));
operator(service, 'ps <SERVICE...>', 'list the tasks of services')
  .option(...quiet)
  .action(async (names, options) => (await import('./commands/service.js')).servicePs(names, options));
operator(service, 'inspect <SERVICE...>', 'show services').action(async (names, options) =>
  (await import('./commands/service.js')).serviceInspect(names, options),
);
operator(service, 'rm <SERVICE...>', 'remove services; the values of their tasks are wiped')
  .option(...detach)
  .action(async (names, options) => (await import('./commands/service.js')).serviceRm(names, options));

/** 0 done, 1 failed, 2 wrong usage. */
async function run(): Promise<number> {
  for (const command of [program, ...program.commands, ...program.commands.flatMap((c) => c.commands)])
    command.exitOverride();
  try {
    await program.parseAsync();
    // A command whose answer is its exit code has set it.
    return Number(process.exitCode ?? 0);
  } catch (thrown) {
    if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? 0 : 2;
    const error = asInroError(thrown);
    process.stderr.write(
      `inro: ${error.message}\n${error.remedy === undefined ? '' : `      ${error.remedy}\n`}`,
    );
    if (error.code === 'internal') process.stderr.write(`${(thrown as Error).stack ?? ''}\n`);
    return error.code === 'bad_input' || error.code === 'bad_config' ? 2 : 1;
  }
}

// A reader that went away must not keep a running command from cleaning up.
let unwritten: NodeJS.ErrnoException | undefined;
process.stdout.on('error', (error: NodeJS.ErrnoException) => (unwritten ??= error));
process.stderr.on('error', () => undefined);
let code = await run();
// What a slow reader has not taken yet, or can never be written, is known only then.
await Promise.all(
  [process.stdout, process.stderr].map((stream) => new Promise((done) => stream.write('', done))),
);
await nextTurn();
if (unwritten !== undefined) {
  if (unwritten.code !== 'EPIPE')
    process.stderr.write(`inro: done, but the result cannot be written: ${unwritten.message}\n`);
  code ||= 1;
}
// A mount that was served keeps handles of its own open: what had to be ended is ended by now.
process.exit(code);
