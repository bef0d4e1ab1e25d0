/** Other programs of the host, asked in its own words. */
import { execFile } from 'node:child_process';

/** None of them has to think for so long. */
const answerMs = 3_000;
const maxAnswerBytes = 64 * 1024;

/** What the program prints, or undefined when it is not there, fails or takes too long. */
export function said(program: string, args: readonly string[]): Promise<string | undefined> {
  const options = {
    timeout: answerMs,
    killSignal: 'SIGKILL' as const,
    maxBuffer: maxAnswerBytes,
    env: { ...process.env, LC_ALL: 'C' },
  };
  return new Promise((resolve) => {
    execFile(program, [...args], options, (error, printed) => resolve(error === null ? printed : undefined));
  });
}
