/**
 * Placement constraints, Swarm's syntax: `node.id==ID`, `node.labels.KEY!=VALUE`. Labels of nodes are the manager's alone; what a
 * host says of itself attracts no secret, so there is no constraint on it.
 */
import { InroError } from './error.js';
import { quoted } from './name.js';

export interface Constraint {
  /** `node.id`, or `node.labels.` and a label's key. */
  key: string;
  operator: '==' | '!=';
  value: string;
}

/** What constraints look at. */
export interface Place {
  id: string;
  labels: Readonly<Record<string, string>>;
}

const labels = 'node.labels.';

/** @throws bad_input for another key: a constraint must not be ignored. */
export function parseConstraint(text: string): Constraint {
  const [, key = '', operator, value = ''] = /^\s*(\S+?)\s*(==|!=)\s*(\S+)\s*$/.exec(text) ?? [];
  if (key === 'node.id' || (key.startsWith(labels) && key.length > labels.length))
    return { key, operator: operator as '==' | '!=', value };
  const isOwnWord = /^node\.(hostname|platform|role|ip)\b|^engine\./.test(key);
  throw new InroError('bad_input', `constraint ${quoted(text)} is not understood`, {
    remedy: isOwnWord
      ? "what a host says of itself decides nothing: write --constraint node.id==ID, or label the node with 'inro node update --label-add KEY=VALUE NODE' and write node.labels.KEY==VALUE"
      : "write --constraint node.id==ID, node.id!=ID, node.labels.KEY==VALUE or node.labels.KEY!=VALUE; 'inro node ls' lists ids and labels",
  });
}

/** One constraint has one text, however it was typed. */
export function constraintText({ key, operator, value }: Constraint): string {
  return `${key}${operator}${value}`;
}

/** A node without the label is not equal to any value of it. */
export function satisfies(node: Place, constraints: readonly Constraint[]): boolean {
  return constraints.every(({ key, operator, value }) => {
    const own = key === 'node.id' ? node.id : node.labels[key.slice(labels.length)];
    return (own === value) === (operator === '==');
  });
}

/** Whether a node may be there that satisfies all of these and all of those. */
export function canShareNode(these: readonly Constraint[], those: readonly Constraint[]): boolean {
  const all = [...these, ...those];
  const wanted = all.filter(({ operator }) => operator === '==');
  return wanted.every(({ key, value }) =>
    all.every((other) => other.key !== key || (other.value === value) === (other.operator === '==')),
  );
}
