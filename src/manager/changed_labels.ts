/** Labels of a secret, a service or a node, with some added and some taken away. */
import { InroError } from '../model/error.js';
import { checkLabels, quoted } from '../model/name.js';
import type { SeenLabels } from '../proto/gen/inro/v1/control_pb.js';

type Labels = Readonly<Record<string, string>>;

export interface LabelChange {
  labelsAdd: Labels;
  labelsRemove: readonly string[];
  /** Undefined: whatever they are. */
  labelsSeen?: SeenLabels | undefined;
}

/** @throws bad_input when the result breaks the rules for labels; conflict when one of them was changed since it was seen. */
export function changedLabels(
  labels: Labels,
  { labelsAdd, labelsRemove, labelsSeen }: LabelChange,
): Record<string, string> {
  if (labelsSeen !== undefined) {
    for (const key of [...Object.keys(labelsAdd), ...labelsRemove]) {
      const present = valueOf(labels, key);
      if (present === valueOf(labelsSeen.labels, key) || present === valueOf(labelsAdd, key)) continue;
      const words = present === undefined ? 'is gone' : `is ${quoted(present)}`;
      throw new InroError('conflict', `label ${quoted(key)} ${words} by now`, {
        remedy: 'somebody else has changed it since: look at it again, and decide anew',
      });
    }
  }
  const kept = Object.entries(labels).filter(([key]) => !labelsRemove.includes(key));
  return checkLabels({ ...Object.fromEntries(kept), ...labelsAdd });
}

function valueOf(labels: Labels, key: string): string | undefined {
  return Object.hasOwn(labels, key) ? labels[key] : undefined;
}
