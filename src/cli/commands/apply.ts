/** inro apply */
import { createInterface } from 'node:readline/promises';
import { InroError } from '../../model/error.js';
import { printable } from '../../model/name.js';
import { sizeText } from '../../model/size.js';
import { Control } from '../../proto/gen/inro/v1/control_pb.js';
import { call } from '../../rpc/client.js';
import { rpcLimits } from '../../rpc/limits.js';
import type { Wanted } from '../apply/file.js';
import { planOf } from '../apply/plan.js';
import type { Change, Step } from '../apply/step.js';
import { readApplied } from '../manifest/read.js';
import { settle, withManager, type ManagerOption } from '../operator.js';
import { printJson, printLine, warn } from '../print.js';

const maxLineChars = 10_000;
/** Of each, beside its value. */
const changeBytes = 256;

export interface ApplyOptions extends ManagerOption {
  file: string;
  dryRun?: boolean;
  yes?: boolean;
  detach?: boolean;
  json?: boolean;
}

/** @throws bad_input, conflict (then nothing was changed), pending. */
export async function applyCommand(options: ApplyOptions): Promise<void> {
  const { wanted, wipe } = readApplied(options.file);
  try {
    await carryOut(wanted, options);
  } finally {
    wipe();
  }
}

/** Shows what is to be done, and does it as one. @throws bad_input, not_found, conflict (then nothing was changed), pending. */
export async function carryOut(
  wanted: Wanted,
  { file, dryRun, yes, json, ...options }: ApplyOptions,
): Promise<void> {
  await withManager(options, async (manager) => {
    const plan = await planOf(wanted, manager);
    if (json !== true) for (const step of plan) printLine(lineOf(step));
    const steps = plan.filter(({ change }) => change !== undefined);
    const isDone = dryRun !== true && steps.length > 0;
    if (isDone) {
      if (yes !== true && !(await isAgreed(file, steps.length)))
        throw new InroError('bad_input', 'nothing was changed', { remedy: 'to do what stands above: --yes' });
      const changes: { change: Change }[] = [];
      // One after the other: each value is read and sealed by itself.
      for (const { change } of steps)
        if (change !== undefined) changes.push({ change: await change(manager) });
      checkSize(changes);
      const changed = await call(manager, Control, 'apply', { changes });
      await settle(manager, changed, options);
    }
    if (json === true) printJson({ applied: isDone, changes: plan.map(stepJson) });
    else if (steps.length === 0) printLine('nothing is to be changed');
    else if (isDone) printLine(`${steps.length} ${steps.length === 1 ? 'change' : 'changes'} applied`);
  });
}

/** All of it is one message. @throws too_large */
function checkSize(changes: readonly { change: Change }[]): void {
  const bytes = changes.reduce(
    (sum, { change: { value = {} } }) =>
      sum + ('ciphertext' in value ? (value.ciphertext?.length ?? 0) : 0) + changeBytes,
    0,
  );
  if (bytes > rpcLimits.maxMessageBytes)
    throw new InroError('too_large', `${changes.length} changes are ${sizeText(bytes)} together`, {
      remedy: `at once there is room for ${sizeText(rpcLimits.maxMessageBytes)}: apply it in parts`,
    });
}

/** Asks a person; whoever is none has to say it on the command line. */
async function isAgreed(file: string, count: number): Promise<boolean> {
  if (!process.stdin.isTTY || file === '-') return false;
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    warn(`${count} ${count === 1 ? 'change' : 'changes'}, all or none`);
    return /^y(es)?$/i.test((await terminal.question('apply? [y/N] ')).trim());
  } finally {
    terminal.close();
  }
}

function lineOf({ mark, kind, name, words }: Step): string {
  return `${mark} ${kind} ${name}: ${printable(words, maxLineChars)}`;
}

const actions = { '+': 'create', '~': 'update', '=': 'none' } as const;

function stepJson({ mark, kind, name, words }: Step) {
  return { action: actions[mark], kind, name, what: words };
}
