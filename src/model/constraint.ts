/** Placement constraints, Swarm's syntax: `node.id==ID`, `node.id!=ID`. */
import { InroError } from './error.js';
import { quoted } from './name.js';

export interface Constraint {
  key: 'node.id';
  operator: '==' | '!=';
  value: string;
}

/** @throws bad_input for another key: placement by hostname or labels is not built yet and must not be ignored. */
export function parseConstraint(text: string): Constraint {
  const match = /^\s*([a-z.]+)\s*(==|!=)\s*(\S+)\s*$/.exec(text);
  if (match === null || match[1] !== 'node.id') {
    throw new InroError('bad_input', `constraint ${quoted(text)} is not understood`, {
      remedy: "write --constraint node.id==ID or node.id!=ID; 'inro node ls' lists the ids",
    });
  }
  return { key: 'node.id', operator: match[2] as '==' | '!=', value: match[3] as string };
}

/** One constraint has one text, however it was typed. */
export function constraintText({ key, operator, value }: Constraint): string {
  return `${key}${operator}${value}`;
}

export function satisfies(node: { id: string }, constraints: readonly Constraint[]): boolean {
  return constraints.every(({ operator, value }) => (node.id === value) === (operator === '=='));
}

/** Whether a node may be there that satisfies all of these and all of those. */
export function canShareNode(these: readonly Constraint[], those: readonly Constraint[]): boolean {
  const all = [...these, ...those];
  const wanted = all.filter(({ operator }) => operator === '==').map(({ value }) => value);
  const [first] = wanted;
  return first === undefined || satisfies({ id: first }, all);
}
