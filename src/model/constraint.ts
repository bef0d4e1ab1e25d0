/**
 * Placement constraints, Swarm's syntax: `node.id==ID`, `node.labels.KEY!=VALUE`, `node.role==worker`, `node.hostname==NAME`.
 * What a host says of itself attracts no secret: a service with references is bound by ids and labels alone, which are the manager's.
 */
import { InroError } from './error.js';
import { quoted } from './name.js';

export interface Constraint {
  /** `node.id`, `node.hostname`, `node.role`, or `node.labels.` and a label's key. */
  key: string;
  operator: '==' | '!=';
  value: string;
}

/** What constraints look at. */
export interface Place {
  id: string;
  hostname: string;
  role: string;
  labels: Readonly<Record<string, string>>;
}

const labels = 'node.labels.';
const ofItself = ['node.hostname', 'node.role'];

/** @throws bad_input for another key: a constraint must not be ignored. */
export function parseConstraint(text: string): Constraint {
  const [, key = '', operator, value = ''] = /^\s*(\S+?)\s*(==|!=)\s*(\S+)\s*$/.exec(text) ?? [];
  const isKnown = key === 'node.id' || ofItself.includes(key);
  if (isKnown || (key.startsWith(labels) && key.length > labels.length))
    return { key, operator: operator as '==' | '!=', value };
  const isOwnWord = /^node\.(platform|ip)\b|^engine\./.test(key);
  throw new InroError('bad_input', `constraint ${quoted(text)} is not understood`, {
    remedy: isOwnWord ? labelInstead : knownKeys,
  });
}

const labelInstead =
  "what a host says of itself decides nothing: write --constraint node.id==ID, or label the node with 'inro node update --label-add KEY=VALUE NODE' and write node.labels.KEY==VALUE";
const knownKeys =
  "write --constraint node.id==ID, node.id!=ID, node.labels.KEY==VALUE or node.labels.KEY!=VALUE; 'inro node ls' lists ids and labels";

/** @throws bad_input for a constraint of a service with secrets on what a host says of itself. */
export function checkAttractsNothing(constraints: readonly string[]): void {
  const found = constraints.find((text) => ofItself.includes(parseConstraint(text).key));
  if (found !== undefined)
    throw new InroError('bad_input', `constraint ${quoted(found)} does not go together with secrets`, {
      remedy: labelInstead,
    });
}

/** One constraint has one text, however it was typed. */
export function constraintText({ key, operator, value }: Constraint): string {
  return `${key}${operator}${value}`;
}

/** A node without the label is not equal to any value of it. */
export function satisfies(node: Place, constraints: readonly Constraint[]): boolean {
  return constraints.every(({ key, operator, value }) => (own(node, key) === value) === (operator === '=='));
}

function own(node: Place, key: string): string | undefined {
  if (key === 'node.id') return node.id;
  if (key === 'node.hostname') return node.hostname;
  if (key === 'node.role') return node.role;
  return node.labels[key.slice(labels.length)];
}

/** Whether a node may be there that satisfies all of these and all of those. */
export function canShareNode(these: readonly Constraint[], those: readonly Constraint[]): boolean {
  const all = [...these, ...those];
  const wanted = all.filter(({ operator }) => operator === '==');
  return wanted.every(({ key, value }) =>
    all.every((other) => other.key !== key || (other.value === value) === (other.operator === '==')),
  );
}
