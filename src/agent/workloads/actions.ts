/** Does what a change asks for (model/on_change.ts), to each workload that is attached. */
import { constants } from 'node:os';
import { join } from 'node:path';
import { getSystemErrorName } from 'node:util';
import { asInroError, InroError } from '../../model/error.js';
import { printable, quoted } from '../../model/name.js';
import type { OnChange } from '../../model/on_change.js';
import { addon, type ProcessFacts } from '../../system/addon.js';
import { processesIn } from '../../system/cgroups.js';
import { runCommand } from '../../system/command.js';
import type { HostTask } from '../host_tasks.js';
import { agentLimits } from '../limits.js';
import type { Attachment, Attachments } from './attachments.js';

/** By name: a program and its arguments. */
export type Hooks = Readonly<Record<string, readonly string[]>>;

/** What acts upon containers; missing where no engine was named. */
export interface ContainerActions {
  signal(containerId: string, signal: string): Promise<void>;
  restart(containerId: string): Promise<void>;
}

export interface ActionParts {
  attachments: Attachments;
  containers: ContainerActions | undefined;
  hooks: () => Hooks;
  mountPath: string;
}

/** @throws an InroError that says of which workload what has failed; the others have been seen to. */
export async function act(action: OnChange, task: HostTask, parts: ActionParts): Promise<void> {
  if (action.kind === 'none') return;
  if (action.kind === 'hook') return runHook(action.hook, task, parts);
  const attached = parts.attachments.ofTask(task.assigned);
  if (attached.length === 0)
    throw new InroError('not_found', 'no workload is attached, so there was nobody to tell');
  const failures: string[] = [];
  for (const attachment of attached) {
    try {
      if (action.kind === 'signal') await signal(attachment, action.signal, parts);
      else await restart(attachment, parts);
    } catch (error) {
      failures.push(`${attachment.kind} ${attachment.name}: ${asInroError(error).message}`);
    }
  }
  if (failures.length > 0) throw new InroError('not_permitted', failures.join('; '));
}

async function runHook(name: string, task: HostTask, { hooks, mountPath }: ActionParts): Promise<void> {
  const known = hooks();
  const command = Object.hasOwn(known, name) ? known[name] : undefined;
  if (command === undefined)
    throw new InroError(
      'not_found',
      `this node has no hook ${quoted(name)}: its agent.yaml has to define it`,
    );
  const { id, serviceName } = task.assigned;
  const env = {
    INRO_SERVICE: serviceName,
    INRO_TASK: id,
    INRO_SECRETS: join(mountPath, serviceName),
    INRO_GENERATION: String(task.generation),
  };
  const { error, said } = await runCommand(command, { env, ms: agentLimits.hookMs });
  if (error === '') return;
  const words = said === '' ? error : `${error}: ${printable(said, agentLimits.maxErrorChars)}`;
  throw new InroError('protocol', `hook ${name} failed: ${words}`);
}

async function signal(
  { kind, name, cgroup }: Attachment,
  wanted: string,
  { containers }: ActionParts,
): Promise<void> {
  if (kind === 'unit') return systemctl(['kill', '--kill-who=main', `--signal=${wanted}`, '--', name]);
  if (kind === 'container' && cgroup?.cgroup === 0) {
    if (containers === undefined) throw noEngine();
    return containers.signal(cgroup.path, wanted);
  }
  const main = cgroup === undefined ? undefined : oldestIn(cgroup.path);
  if (main === undefined) throw new InroError('not_found', 'it has no process any more');
  const number = constants.signals[wanted as NodeJS.Signals];
  const errno = addon().signalProcess(main.process, main.startTicks, number);
  if (errno !== 0)
    throw new InroError(
      'not_permitted',
      `${wanted} to process ${main.process}: ${getSystemErrorName(-errno)}${errno === -constants.errno.EPERM ? mayNot : ''}`,
    );
}

async function restart({ kind, name, cgroup }: Attachment, { containers }: ActionParts): Promise<void> {
  if (kind === 'unit') return systemctl(['try-restart', '--', name]);
  if (kind !== 'container' || cgroup?.cgroup !== 0)
    throw new InroError('not_supported', 'only containers and units can be restarted; use signal or hook');
  if (containers === undefined) throw noEngine();
  await containers.restart(cgroup.path);
}

const mayNot = " (another user's; the agent's unit can have CapabilityBoundingSet=CAP_KILL)";

/** The first of a workload's processes: what the others come from. */
function oldestIn(path: string): ProcessFacts | undefined {
  return processesIn(path)
    .flatMap((pid) => addon().processOf(pid) ?? [])
    .sort((a, b) => a.startTicks - b.startTicks || a.process - b.process)[0];
}

/** Root's service manager, or the user's. */
async function systemctl(args: readonly string[]): Promise<void> {
  const isRoot = process.getuid?.() === 0;
  const runtime = process.env['XDG_RUNTIME_DIR'];
  const env: Record<string, string> = runtime === undefined || isRoot ? {} : { XDG_RUNTIME_DIR: runtime };
  const command = ['systemctl', ...(isRoot ? [] : ['--user']), ...args];
  const { error, said } = await runCommand(command, { env, ms: agentLimits.unitRestartMs });
  if (error !== '')
    throw new InroError(
      'protocol',
      `systemctl ${args[0]}: ${error}: ${printable(said, agentLimits.maxErrorChars)}`,
    );
}

function noEngine(): InroError {
  return new InroError('not_supported', 'the agent has no container engine: key docker in its agent.yaml');
}
