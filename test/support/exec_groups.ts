/** The cgroups that `inro exec` makes: one for each command, named after its service. They are the whole machine's. */
import { readdirSync, rmdirSync } from 'node:fs';
import type { ExecutionContext } from 'ava';

export const unified = '/sys/fs/cgroup/unified';

export const execGroups = (service: string): string[] =>
  readdirSync(unified).filter((name) => name.startsWith(`inro-exec-${service}-`));

/** What a test leaves when its agent is killed: to be called before the host is made, as it happens after its end. */
export function clearExecGroups(t: ExecutionContext, service: string): void {
  t.teardown(() => {
    for (const name of execGroups(service)) rmdirSync(`${unified}/${name}`);
  });
}
