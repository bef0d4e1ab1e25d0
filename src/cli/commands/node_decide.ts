/** inro node approve|reject|rm|clear-alarm: an operator's decisions on who is a node. */
import { InroError } from '../../model/error.js';
import { checkLabels, type Labels } from '../../model/name.js';
import { Control, type RemovedNode } from '../../proto/gen/inro/v1/control_pb.js';
import { call } from '../../rpc/client.js';
import { settle, settleMs, withManager, type ManagerOption } from '../operator.js';
import { iso, isoOrNull, labelText, printJson, printLine } from '../print.js';

interface Common extends ManagerOption {
  json?: boolean;
}

export function nodeApprove(name: string, options: Common): Promise<void> {
  return decide('approveNode', name, options, 'is approved: it gets its certificate when it asks next');
}

export function nodeReject(name: string, options: Common): Promise<void> {
  return decide('rejectNode', name, options, 'is rejected');
}

export function nodeClearAlarm(name: string, options: Common): Promise<void> {
  return decide('clearNodeAlarm', name, options, 'has no alarm any more, until it is seen again');
}

/** @throws bad_input when nothing is to be changed. */
interface UpdateOptions {
  labelAdd: Labels;
  labelRm: string[];
  availability?: string;
  ifVersion?: number;
  detach?: boolean;
}

export async function nodeUpdate(name: string, options: Common & UpdateOptions): Promise<void> {
  const { labelAdd, labelRm: labelsRemove, availability = '', json } = options;
  const labelsAdd = checkLabels(labelAdd);
  if (Object.keys(labelsAdd).length + labelsRemove.length === 0 && availability === '')
    throw new InroError('bad_input', 'there is nothing to change', {
      remedy: 'write --availability active|pause|drain, --label-add KEY=VALUE or --label-rm KEY',
    });
  await withManager(options, async (manager) => {
    const seen = await call(manager, Control, 'getNode', { name });
    const ifVersion = options.ifVersion ?? (availability === '' ? 0 : seen.version);
    const labelsSeen = { labels: seen.labels };
    const request = { name, labelsAdd, labelsRemove, labelsSeen, availability, ifVersion };
    const { node, changed } = await call(manager, Control, 'updateNode', request);
    if (node === undefined || changed === undefined)
      throw new InroError('protocol', 'the manager sent no node');
    await settle(manager, changed, options);
    const { id, description, labels } = node;
    const hostname = description?.hostname ?? '';
    const words = availability === '' ? '' : `is set to ${node.availability}, `;
    if (json === true) printJson({ id, hostname, labels, availability: node.availability });
    else
      printLine(
        `node ${id}${hostname === '' ? '' : ` (${hostname})`} ${words}has labels: ${labelText(labels)}`,
      );
  });
}

async function decide(
  what: 'approveNode' | 'rejectNode' | 'clearNodeAlarm',
  name: string,
  options: Common,
  words: string,
): Promise<void> {
  const { id, description } = await withManager(options, (manager) => call(manager, Control, what, { name }));
  const hostname = description?.hostname ?? '';
  if (options.json === true) printJson({ id, hostname });
  else printLine(`node ${id}${hostname === '' ? '' : ` (${hostname})`} ${words}`);
}

/** @throws pending when the node may still serve something: the removal itself is done. */
export async function nodeRm(name: string, options: Common & { force?: boolean }): Promise<void> {
  const { force = false } = options;
  const removed = await withManager(options, (manager) =>
    call(manager, Control, 'removeNode', { name, force }, settleMs),
  );
  const { id, hostname, versions, wiped, leaseEndsMs } = removed;
  if (options.json === true) printJson(removedJson(removed));
  else printLine(`node ${id}${hostname === '' ? '' : ` (${hostname})`} is removed: ${wipedText(removed)}`);
  if (leaseEndsMs === 0n) return;
  throw new InroError(
    'pending',
    `the node is removed, but did not say that it has wiped ${versions - wiped} of ${versions} values: it may serve them until ${iso(leaseEndsMs)} at the latest, when its lease ends`,
    { remedy: 'to be sure before that, end its agent there, or replace the values: inro secret update' },
  );
}

function wipedText({ versions, wiped, leaseEndsMs }: RemovedNode): string {
  if (versions === 0) return 'it held nothing';
  return leaseEndsMs === 0n
    ? `it has wiped ${wiped} of ${versions} values`
    : 'its certificate is refused from now on';
}

function removedJson({ id, hostname, tasks, versions, wiped, leaseEndsMs }: RemovedNode) {
  return { id, hostname, tasks, versions, wiped, leaseEndsAt: isoOrNull(leaseEndsMs) };
}
