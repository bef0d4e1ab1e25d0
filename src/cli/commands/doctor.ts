/** inro doctor: what keeps an agent from running here, or from running well. */
import { readAgentConfig } from '../../config/read.js';
import type { AgentConfig } from '../../config/keys.js';
import { examine } from '../../doctor/examine.js';
import { failure, ok, type Finding } from '../../doctor/finding.js';
import { systemClock } from '../../system/clock.js';
import { paths } from '../paths.js';
import { printJson, printLine } from '../print.js';
import { settingsFile } from '../settings.js';

export interface DoctorOptions {
  config?: string;
  state?: string;
  mount?: string;
  json?: boolean;
}

export async function doctor({ config, json, ...flags }: DoctorOptions): Promise<void> {
  const { settings, finding } = readSettings(config);
  const { state, mount, socket, managers } = { ...settings, ...flags };
  const subject = {
    stateFolder: () => state ?? paths.agentState,
    mountPath: () => mount ?? paths.mount,
    socketPath: () => socket ?? paths.agentSocket,
    ...(managers === undefined ? {} : { managers }),
  };
  const findings = [finding, ...(await examine(subject, systemClock))];
  if (json === true) printJson(findings.map(({ remedy = '', ...found }) => ({ ...found, remedy })));
  else printFindings(findings);
  if (findings.some((found) => found.state === 'fail')) process.exitCode = 1;
}

/** A file that is broken is a finding; the rest is then looked at with the defaults. */
function readSettings(config: string | undefined): { settings: AgentConfig; finding: Finding } {
  const name = 'configuration';
  const { path, read } = settingsFile(config, paths.agentConfig, readAgentConfig);
  try {
    const settings = read();
    const keys = Object.keys(settings);
    const detail = keys.length === 0 ? 'defaults' : `${path ?? ''} sets ${keys.join(', ')}`;
    return { settings, finding: ok(name, detail) };
  } catch (error) {
    return { settings: {}, finding: failure(name, error) };
  }
}

function printFindings(findings: readonly Finding[]): void {
  const width = Math.max(...findings.map(({ name }) => name.length));
  const indent = ' '.repeat('note  '.length + width + 2);
  for (const { state, name, detail, remedy } of findings) {
    printLine(`${state.padEnd(4)}  ${name.padEnd(width)}  ${detail}`);
    if (remedy !== undefined) printLine(`${indent}-> ${remedy}`);
  }
  const count = (wanted: Finding['state']): number => findings.filter(({ state }) => state === wanted).length;
  printLine(
    `\n${count('fail')} failed, ${count('warn')} warnings, ${count('note')} notes, ${count('ok')} ok`,
  );
}
