/** Runs one program quietly: what it says is kept, and shown by the caller only when it failed. */
import { spawn } from 'node:child_process';

const keptOutputBytes = 4 * 1024 * 1024;
const restOfOutputMs = 1_000;

/**
 * @param command program and arguments
 * @param options {cwd, env, limitMs}
 * @returns {ok, output, outcome}: outcome says in words how it ended
 */
export function run([program, ...args], { cwd, env, limitMs }) {
  return new Promise((resolve) => {
    const child = spawn(program, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
    const kept = [];
    let keptBytes = 0;
    let late = false;
    const keep = (chunk) => {
      kept.push(chunk);
      keptBytes += chunk.length;
      while (keptBytes > keptOutputBytes) keptBytes -= kept.shift().length;
    };
    const limit = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, limitMs);
    const done = (ok, outcome) => {
      clearTimeout(limit);
      resolve({ ok, output: Buffer.concat(kept).toString(), outcome });
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    child.on('error', (error) => done(false, error.message));
    child.on('exit', (code, signal) => {
      const end = () => {
        if (late) done(false, `took longer than ${limitMs / 60_000} min`);
        else if (signal !== null) done(false, `was ended by ${signal}`);
        else done(code === 0, `exit code ${code}`);
      };
      // The rest of the output; but something left behind may hold the pipes open for ever.
      child.on('close', end);
      setTimeout(end, restOfOutputMs).unref();
    });
  });
}
