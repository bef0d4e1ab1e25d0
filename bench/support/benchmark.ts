/** What a benchmark is: one file in bench/, named like itself, that exports `benchmark`. */
import type { Lab } from './lab.js';
import type { Line } from './results.js';

export interface Benchmark {
  /** What it shows, in one line. */
  summary: string;
  /** Beside --json: name -> what stands in for it when it is not given, and what it means. All are whole numbers from 1. */
  options: Readonly<Record<string, { standard: number; means: string }>>;
  /** What this host lacks, in words; undefined when it can run. */
  missing(): string | undefined;
  run(lab: Lab, options: Readonly<Record<string, number>>): Promise<Report>;
}

export interface Report {
  /** What was in force, for the line above the table. */
  conditions: string;
  lines: readonly Line[];
  /** How the table is to be read, a sentence each. */
  notes: readonly string[];
}
