/** Results: claims, each with its peer of the same run, its spread and its target; as JSON and as a table. */
import { formatTable } from '../../src/cli/print.js';

/** One element of what --json prints. */
export interface Result {
  claim: string;
  /** The median of the runs. */
  value: number;
  unit: string;
  peer: string | null;
  peerValue: number | null;
  /** The median of the runs' ratios: value to peer's value. */
  ratio: number | null;
  /** Of the ratio; without a peer, of the value. */
  min: number;
  max: number;
  runs: number;
}

/** At most so much: of the unit, or (`x`) times the peer. */
export interface Target {
  atMost: number;
  of: 'value' | 'ratio';
}

export interface Line extends Result {
  targets: readonly Target[];
  /** The value's and the peer's own spread. */
  spread: string;
  peerSpread: string;
}

export interface Measured {
  claim: string;
  unit: string;
  /** One for each run. */
  values: readonly number[];
  /** Measured in the same runs, in their order. */
  peer?: { name: string; values: readonly number[] };
  targets?: readonly Target[];
}

export function line({ claim, unit, values, peer, targets = [] }: Measured): Line {
  if (values.length === 0 || (peer !== undefined && peer.values.length !== values.length))
    throw new RangeError(`${claim}: not the same runs`);
  const ratios = peer?.values.map((peerValue, run) => (values[run] ?? NaN) / peerValue);
  const spread = ratios ?? values;
  return {
    claim,
    value: rounded(median(values)),
    unit,
    peer: peer?.name ?? null,
    peerValue: peer === undefined ? null : rounded(median(peer.values)),
    ratio: ratios === undefined ? null : rounded(median(ratios)),
    min: rounded(Math.min(...spread)),
    max: rounded(Math.max(...spread)),
    runs: values.length,
    targets,
    spread: range(values),
    peerSpread: peer === undefined ? '' : range(peer.values),
  };
}

export function asJson(lines: readonly Line[]): Result[] {
  return lines.map(({ claim, value, unit, peer, peerValue, ratio, min, max, runs }) => {
    return { claim, value, unit, peer, peerValue, ratio, min, max, runs };
  });
}

export function asTable(lines: readonly Line[]): string {
  const head = ['CLAIM', 'VALUE', 'UNIT', 'PEER', "PEER'S VALUE", 'RATIO', 'RUNS', 'TARGET', 'MET'];
  const rows = lines.map((each) => [
    each.claim,
    `${shown(each.value)}${each.spread}`,
    each.unit,
    each.peer ?? '-',
    each.peerValue === null ? '-' : `${shown(each.peerValue)}${each.peerSpread}`,
    each.ratio === null ? '-' : `${shown(each.ratio)} (${shown(each.min)}..${shown(each.max)})`,
    String(each.runs),
    each.targets.map((target) => inWords(target, each)).join(', ') || '-',
    each.targets.length === 0 ? '-' : missed(each).length === 0 ? 'yes' : 'NO',
  ]);
  return formatTable([head, ...rows]);
}

/** Targets that a line does not meet. */
export function missed(each: Line): Target[] {
  return each.targets.filter(({ atMost, of }) => (each[of] ?? Infinity) > atMost);
}

/** Of no values NaN. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

function inWords({ atMost, of }: Target, { unit }: Result): string {
  return of === 'ratio' ? `<= ${atMost} x` : atMost === 0 ? '0' : `<= ${atMost} ${unit}`;
}

function range(values: readonly number[]): string {
  return values.length === 1 ? '' : ` (${shown(Math.min(...values))}..${shown(Math.max(...values))})`;
}

/** Three digits that say something; two of what is small. */
function shown(value: number): string {
  if (value >= 100 || Number.isInteger(value)) return value.toFixed(0);
  if (value < 0.1) return String(Number(value.toPrecision(2)));
  return value.toFixed(value >= 10 ? 1 : 2);
}

function rounded(value: number): number {
  return Number(value.toPrecision(6));
}
