/** Who waits in the kernel for a FUSE server, or is one: for a message when something hangs. */
import { readdirSync, readFileSync } from 'node:fs';

/** A line for each thread: its process's command, where in the kernel it is. Needs root. */
export function stuckInFuse(): string {
  const lines: string[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').slice(0, 100);
      for (const thread of readdirSync(`/proc/${pid}/task`)) {
        const stack = readFileSync(`/proc/${pid}/task/${thread}/stack`, 'utf8').replace(/\[<0>\] /g, '');
        const isOwn = /agent run/.test(command);
        if (!isOwn && !/fuse|inode_lock|rwsem|d_alloc_parallel/.test(stack)) continue;
        const state = /State:\s+(\S+)/.exec(readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8'))?.[1];
        lines.push(
          `${pid}/${thread} ${state} ${command}: ${stack.trim().split('\n').slice(0, 8).join(' < ')}`,
        );
      }
    } catch {
      continue; // it has ended
    }
  }
  return lines.join('\n');
}
