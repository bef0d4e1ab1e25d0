/** What starts the agent, and keeps its units. */
import { note, ok, type Finding } from './finding.js';

const oldest = 252;

/** @param booted /run/systemd/system is there (sd_booted(3)). @param said by `systemctl --version`. */
export function systemd(booted: boolean, said: string | undefined): Finding {
  const name = 'systemd';
  if (!booted)
    return note(name, 'does not run this host: something else must start the agent and stop it with SIGTERM');
  const [, version] = /^systemd ([0-9]+)/.exec(said ?? '') ?? [];
  if (version === undefined) return note(name, 'runs this host; its version cannot be told');
  return Number(version) < oldest
    ? note(name, `version ${version}: inro is tried with ${oldest} and newer`)
    : ok(name, `version ${version}`);
}
