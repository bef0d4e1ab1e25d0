/** A program of the host's, run to its end in a process group of its own, with nothing of this process's environment. */
import { spawn } from 'node:child_process';

export interface CommandEnd {
  /** '' when it ended with 0. */
  error: string;
  /** The last line that it wrote to its standard error. */
  said: string;
}

const maxSaidChars = 4096;
const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Never rejects. After `ms` the whole group is killed. */
export function runCommand(
  [program = '', ...args]: readonly string[],
  { env, ms }: { env: Readonly<Record<string, string>>; ms: number },
): Promise<CommandEnd> {
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd: '/',
      env: { PATH: path, LC_ALL: 'C.UTF-8', ...env },
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
    });
    let said = '';
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      endGroup(child.pid);
      // Somebody who left the group may hold its end open.
      child.stderr.destroy();
    }, ms);
    const end = (error: string): void => {
      clearTimeout(timer);
      resolve({ error, said: lastLine(said) });
    };
    child.stderr
      .setEncoding('utf8')
      .on('data', (text: string) => (said = (said + text).slice(-maxSaidChars)));
    child.once('error', (cause: NodeJS.ErrnoException) =>
      end(`cannot be started: ${cause.code ?? cause.message}`),
    );
    child.once('close', (code, signal) => {
      if (isLate) end(`took longer than ${ms / 1000} s and was killed`);
      else if (signal !== null) end(`was killed by ${signal}`);
      else end(code === 0 ? '' : `exit code ${code}`);
    });
  });
}

function endGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    return; // it has just ended
  }
}

function lastLine(text: string): string {
  return text.trimEnd().split('\n').at(-1) ?? '';
}
