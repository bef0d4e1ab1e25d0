/**
 * inro exec: gives this process a cgroup of its own, attaches it to the service, and becomes the command. So signals, terminal and
 * exit code are the command's own, and no process of inro stays beside it. The agent detaches when the cgroup is empty.
 */
import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { basename, delimiter, join } from 'node:path';
import { InroError } from '../../model/error.js';
import { newId } from '../../model/id.js';
import { quoted } from '../../model/name.js';
import { Agent, type AttachResponse } from '../../proto/gen/inro/v1/agent_pb.js';
import { withAgent } from '../../rpc/agent_socket.js';
import { call } from '../../rpc/client.js';
import { addon } from '../../system/addon.js';
import { enterCgroup, makeCgroup, removeCgroup, unifiedMount } from '../../system/cgroups.js';
import { systemRandom } from '../../system/clock.js';
import { paths } from '../paths.js';
import { warn } from '../print.js';

interface ExecOptions {
  env: string[];
  socket?: string;
}

/** As shells have it: the command cannot be run, or is not there. */
const exitCode = { cannotRun: 126, notFound: 127 } as const;

export async function exec(service: string, command: string[], options: ExecOptions): Promise<void> {
  const wanted = options.env.map(parseEnv);
  const [name = ''] = command;
  const program = findProgram(name);
  if (program === undefined) {
    warn(`there is no command ${quoted(name)}`);
    process.exitCode = exitCode.notFound;
    return;
  }
  const leave = enterOwnCgroup(service);
  try {
    const attached = await withAgent(options.socket ?? paths.agentSocket, (agent) =>
      call(agent, Agent, 'attach', { service, kind: 'exec', name: basename(name), pid: process.pid }),
    );
    const environment: Record<string, string | undefined> = { ...process.env, INRO_SECRETS: attached.path };
    for (const { variable, secret } of wanted) environment[variable] = valueOf(attached, secret);
    const failed = addon().replaceProcess(
      program,
      command,
      Object.entries(environment).flatMap(([key, value]) => (value === undefined ? [] : [`${key}=${value}`])),
      lastDescriptor(),
    );
    leave();
    warn(`${program} cannot be run (errno ${failed})`);
    process.exitCode = exitCode.cannotRun;
  } catch (error) {
    leave();
    throw error;
  }
}

/** Sockets that systemd hands to the command (sd_listen_fds(3)). */
function lastDescriptor(): number {
  const { LISTEN_PID, LISTEN_FDS } = process.env;
  return LISTEN_PID === String(process.pid) ? 2 + Number(LISTEN_FDS ?? 0) : 2;
}

function parseEnv(text: string): { variable: string; secret: string } {
  const [, variable, secret] = /^([A-Za-z_][A-Za-z0-9_]*)=(.+)$/.exec(text) ?? [];
  if (variable === undefined || secret === undefined)
    throw new InroError('bad_input', `--env ${quoted(text)} is not NAME=SECRET`, {
      remedy: 'such as --env DB_PASSWORD=db_password',
    });
  return { variable, secret };
}

/** Asked for by name, because somebody decided that this program takes it in no other way. */
function valueOf({ path, targets }: AttachResponse, secret: string): string {
  const target = targets[secret];
  if (target === undefined)
    throw new InroError('not_found', `this service has no secret ${quoted(secret)}`, {
      remedy: `it has: ${Object.keys(targets).join(', ') || 'none'}`,
    });
  const value = readFileSync(join(path, target), 'utf8');
  if (value.includes('\0'))
    throw new InroError('bad_input', `secret ${quoted(secret)} has a zero byte: no environment can hold it`, {
      remedy: `let the command read ${join(path, target)}`,
    });
  warn(`the value of ${secret} is in the environment of the command: /proc shows it to its user and to root`);
  return value;
}

function findProgram(name: string): string | undefined {
  const candidates = name.includes('/')
    ? [name]
    : (process.env['PATH'] ?? '/usr/local/bin:/usr/bin:/bin')
        .split(delimiter)
        .map((folder) => join(folder, name));
  return candidates.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return statSync(path).isFile();
    } catch {
      return false;
    }
  });
}

/** @returns goes back and takes it away. */
function enterOwnCgroup(service: string): () => void {
  const before = addon().processOf(process.pid)?.cgroupPath ?? '';
  if (unifiedMount() === '' || before === '')
    throw new InroError(
      'not_supported',
      'this host has no cgroup2, by which the command could be told from others',
      {
        remedy: 'mount it: mount -t cgroup2 none /sys/fs/cgroup/unified',
      },
    );
  const plain = service.replaceAll(/[^A-Za-z0-9_.-]/g, '_').slice(0, 64);
  try {
    const own = makeCgroup(before, `inro-exec-${plain}-${newId(systemRandom)}`);
    const leave = (): void => {
      enterCgroup(before);
      removeCgroup(own);
    };
    try {
      enterCgroup(own);
    } catch (error) {
      removeCgroup(own);
      throw error;
    }
    return leave;
  } catch (cause) {
    throw new InroError(
      'not_permitted',
      `a cgroup below ${before} cannot be made: ${(cause as Error).message}`,
      {
        remedy:
          'run it as root, or where you may make cgroups: systemd-run --user --scope -p Delegate=yes inro exec ...',
        cause,
      },
    );
  }
}
